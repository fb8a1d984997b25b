"""Arguments of WeightWatcher that have no counterpart in htsr."""

from collections.abc import Mapping

# Arguments that htsr.compat accepts at their default only: the default, and what to do instead of another value.
REFUSED: dict[str, tuple[object, str]] = {
    "fit": ("PL", "use htsr.analyze(..., alternatives=True) for other distributions"),
    "pl_package": ("ww", "htsr.crosscheck compares with powerlaw"),
    "fix_fingers": (False, "use htsr.fit_power_law(..., xmax=) or xmin="),
    "xmax": (None, "use htsr.fit_power_law(..., xmax=)"),
    "pool": (True, "htsr.analyze(..., conv='slices') gives each slice of a convolution a row"),
    "ww2x": (False, "htsr.analyze(..., conv='slices') gives each slice of a convolution a row"),
    "conv2d_norm": (True, "use htsr.analyze, which has no hidden factor"),
    "base_model": (None, "use htsr.compare(base, model).delta.to_weightwatcher()"),
    "peft": (False, "use htsr.compare(base, merged).delta.to_weightwatcher()"),
    "inverse": (False, "use htsr.fit_power_law(1 / eigenvalues)"),
    **{name: (False, "it has no counterpart in htsr") for name in (
        "glorot_fix", "conv2d_fft", "fft", "deltas", "intra", "vectors", "stacked")},
    "channels": (None, "it has no counterpart in htsr"),
    "min_size": (None, "use min_evals="),
    "max_size": (None, "use max_evals="),
}  # fmt: skip
# Arguments that may have any value, because htsr's fits and spectra do not depend on them.
IGNORED = ("svd_method", "sparsify", "xmin_max", "max_fingers", "finger_thresh")


def refuse_unsupported(arguments: Mapping[str, object]) -> None:
    """Raise an error that names the remedy unless every argument is at its default or changes nothing.

    Raises:
        ValueError: If an argument has another value than its default and no counterpart in htsr.
        TypeError: If WeightWatcher has no such argument.
    """
    for name, value in arguments.items():
        if name in IGNORED:
            continue
        if name not in REFUSED:
            raise TypeError(f"unexpected argument {name!r}: this method of WeightWatcher does not take it")
        default, remedy = REFUSED[name]
        same = value is default or (type(value) is type(default) and value == default)
        if not same and not (name == "fit" and value == "power_law") and not (name == "fix_fingers" and value is None):
            raise ValueError(f"htsr.compat does not support {name}={value!r}: {remedy}")
