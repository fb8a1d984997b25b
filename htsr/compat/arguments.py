"""WeightWatcher's arguments: those that htsr.compat honours, those that change nothing here, and those that it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from htsr.compat.constants import DEFAULT_PARAMS

# Arguments that htsr.compat accepts at their default only: the default, and why not another value and what to do instead.
REFUSED: dict[str, tuple[object, str]] = {
    "peft": (False, "WeightWatcher leaves lora_alpha out; use htsr.analyze(adapter_directory, base=model)"),
    "vectors": (False, "use htsr.analyze(..., vectors=True)"),
    "deltas": (False, "htsr draws no level spacings; numpy.diff of the eigenvalues gives them"),
    "conv2d_fft": (False, "WeightWatcher drops the imaginary parts; use htsr.analyze(..., conv='unfold')"),
    "fft": (False, "WeightWatcher itself raises AttributeError"),
    "channels": (None, "WeightWatcher itself raises TypeError; permute the kernel to (out, in, height, width)"),
    "min_size": (None, "use min_evals="),
    "max_size": (None, "use max_evals="),
}
# Arguments that may have any value, because htsr's numbers do not depend on them, or WeightWatcher's do not.
IGNORED = ("svd_method", "glorot_fix")
NO_TPL = (
    "WeightWatcher needs powerlaw 1.5 for it, which ends at alpha = 1 for noise, and gives -1 with powerlaw 2; use "
    "htsr.analyze(..., alternatives=True), or fit.compare('truncated_power_law') with xmin='peak' for the E_TPL"
)
FITS = ("PL", "power_law")
TRUNCATED_FITS = ("TPL", "E_TPL", "truncated_power_law")
PACKAGES = ("ww", "powerlaw")
FIX_FINGERS = ("xmin_peak", "clip_xmax")


@dataclass(frozen=True)
class Options:
    """WeightWatcher's options that change its numbers, each with its default."""

    pool: bool = True
    conv2d_norm: bool = True
    intra: bool = False
    sparsify: bool = True
    stacked: bool = False
    inverse: bool = False
    fit: str = "PL"
    pl_package: str = "ww"
    fix_fingers: str | bool | None = False
    max_fingers: int | None = 10
    finger_thresh: float = 1.0
    xmin_max: float | None = None
    xmax: int | str | bool | None = None

    @property
    def refits(self) -> bool:
        """Whether the power law is fitted in another way than by default."""
        return bool(self.fix_fingers) or self.xmax not in (None, False)

    @property
    def transforms(self) -> bool:
        """Whether something else than the eigenvalues of a weight is fitted."""
        return self.intra or self.stacked or self.inverse


def parsed(arguments: Mapping[str, Any]) -> Options:
    """Return WeightWatcher's options among the arguments of a call.

    Raises:
        TypeError: If WeightWatcher has no such argument.
        ValueError: If the value of an argument is unknown or has no counterpart in htsr.
    """
    known = {field.name for field in fields(Options)}
    given = {}
    for name, value in arguments.items():
        if name in known:
            given[name] = value
        elif name in REFUSED:
            default, why = REFUSED[name]
            if value is not default and not (type(value) is type(default) and value == default):
                raise ValueError(f"htsr.compat does not support {name}={value!r}: {why}")
        elif name not in IGNORED and name != "ww2x":
            raise TypeError(f"unexpected argument {name!r}: this method of WeightWatcher does not take it")
    options = Options(**given)
    if arguments.get("ww2x"):
        options = replace(options, pool=False)
    problem = _problem(options)
    if problem:
        raise ValueError(f"htsr.compat does not support {problem}")
    return options


def _problem(options: Options) -> str:
    """Return what is wrong with options, an empty string if nothing is."""
    if options.fit in TRUNCATED_FITS:
        return f"fit={options.fit!r}: {NO_TPL}"
    if options.fit not in FITS:
        return f"fit={options.fit!r}: expected 'PL'"
    if options.pl_package not in PACKAGES:
        return f"pl_package={options.pl_package!r}: expected 'ww' or 'powerlaw', which give the same fit"
    if options.fix_fingers and options.fix_fingers not in FIX_FINGERS:
        return f"fix_fingers={options.fix_fingers!r}: expected 'clip_xmax' or 'xmin_peak'"
    if options.xmax == "force" and options.pl_package != "powerlaw":
        return "xmax='force' without pl_package='powerlaw', as in WeightWatcher"
    counted = type(options.xmax) is int and options.xmax != 0
    if not counted and options.xmax is not None and options.xmax is not False and options.xmax != "force":
        return f"xmax={options.xmax!r}: expected 'force' or how many of the largest eigenvalues to leave out"
    if options.fix_fingers and options.xmax not in (None, False):
        return f"fix_fingers={options.fix_fingers!r} together with xmax={options.xmax!r}"
    if options.fix_fingers and options.max_fingers is not None and options.max_fingers < 1:
        return f"max_fingers={options.max_fingers!r}: expected at least 1"
    if options.stacked and options.intra:
        return "stacked=True together with intra=True"
    return ""


def valid_params(params: Mapping[str, Any]) -> bool:
    """Return whether WeightWatcher would accept a dictionary of parameters such as ``DEFAULT_PARAMS``.

    Args:
        params: The parameters by WeightWatcher's names; those that are missing have their defaults.

    Returns:
        Whether they are consistent. ``analyze`` still refuses what htsr does not support.
    """
    p = {**DEFAULT_PARAMS, **params}
    ids = [item for item in _listed(p.get("layers")) if isinstance(item, int)]
    xmax, fix_fingers, powerlaw = p["xmax"], p["fix_fingers"], p["pl_package"] == "powerlaw"
    return not (
        0 < p["max_evals"] <= p["min_evals"]
        or p["max_evals"] < -1
        or p["max_N"] < max(p["max_evals"], p["min_evals"])
        or p["svd_method"] not in ("fast", "accurate")
        or p["ww2x"]
        or (p["conv2d_fft"] and (p["intra"] or not p["pool"]))
        or (isinstance(p["channels"], str) and p["channels"].lower() not in ("first", "last"))
        or (any(item > 0 for item in ids) and any(item < 0 for item in ids))
        or not isinstance(p["savefig"], str | bool)
        or (fix_fingers and fix_fingers not in FIX_FINGERS)
        or (fix_fingers and isinstance(xmax, int) and xmax is not False)
        or (fix_fingers and p["MAX_FINGERS"] is not None and p["MAX_FINGERS"] < 1)
        or p["fit"] not in (*FITS, *TRUNCATED_FITS)
        or (p["fit"] == "E_TPL" and fix_fingers == "clip_xmax")
        or (p["intra"] and (p["randomize"] or p["vectors"]))
        or p["layer_ids_start"] < 0
        or p["pl_package"] not in PACKAGES
        or not (isinstance(xmax, int) or xmax in (None, "force"))
        or (isinstance(xmax, int) and xmax is not False and xmax == 0)
        or (not powerlaw and (xmax == "force" or p["fit"] not in FITS))
        or (p["inverse"] and p["vectors"])
    )


def _listed(layers: object) -> list[object]:
    """Return ``layers=`` as a list."""
    if layers is None:
        return []
    return list(layers) if isinstance(layers, list | tuple | set) else [layers]
