"""Arguments of WeightWatcher that have no counterpart."""

from collections.abc import Mapping

from htsr.errors import InputError

# Arguments of WeightWatcher that are accepted at their default and refused otherwise, with what to do instead.
REFUSED: dict[str, tuple[object, str]] = {
    "fit": ("PL", "use htsr.analyze(..., alternatives=True) for other distributions"),
    "pl_package": ("ww", "htsr.crosscheck compares with powerlaw"),
    "fix_fingers": (False, "use htsr.fit_power_law(..., xmax=) or xmin="),
    "xmax": (None, "use htsr.fit_power_law(..., xmax=)"),
    "pool": (True, "every slice of a convolution alone has no counterpart here"),
    "ww2x": (False, "every slice of a convolution alone has no counterpart here"),
    "conv2d_norm": (True, "use htsr.analyze, which has no hidden factor"),
    "base_model": (None, "use htsr.compare(base, model).delta.to_weightwatcher()"),
    "peft": (False, "use htsr.compare(base, merged).delta.to_weightwatcher()"),
    "inverse": (False, "use htsr.fit_power_law(1 / eigenvalues)"),
    **{name: (False, "it has no counterpart here") for name in (
        "glorot_fix", "conv2d_fft", "fft", "deltas", "intra", "vectors", "stacked")},
    "channels": (None, "it has no counterpart here"),
    "min_size": (None, "use min_evals="),
    "max_size": (None, "use max_evals="),
}  # fmt: skip
# Arguments that change nothing here: fits and spectra do not depend on them.
IGNORED = ("svd_method", "sparsify", "xmin_max", "max_fingers", "finger_thresh")


def refuse(arguments: Mapping[str, object]) -> None:
    """Refuse what is not at its default and has no counterpart here.

    Args:
        arguments: Names and values.

    Raises:
        InputError: If one has no counterpart, with what to use instead.
        TypeError: If WeightWatcher has no such argument.
    """
    for name, value in arguments.items():
        if name in IGNORED:
            continue
        if name not in REFUSED:
            raise TypeError(
                f"unexpected argument {name!r}: WeightWatcher has none of this name, or it is of another method"
            )
        default, remedy = REFUSED[name]
        same = value is default or (type(value) is type(default) and value == default)
        if not same and not (name == "fit" and value == "power_law") and not (name == "fix_fingers" and value is None):
            raise InputError(f"htsr.compat does not carry over {name}={value!r}: {remedy}")
