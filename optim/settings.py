"""The settings of ``HTMuon`` and ``spectral_power``: their names, the values they take, and how wrong ones are refused."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from htsr.optim.quintics import TABLES

Algorithm = Literal["htmuon", "adamw"]
Method = Literal["auto", "svd", "eigh", "cholesky", "iterate", "stream"]
Scale = Literal["match_muon", "spectral", "raw"]
AdjustLR = Literal["original", "match_rms_adamw", "spectral"]
Layout = Literal["flatten", "stack", "transposed"]
Check = Callable[[str, Any], None]

# The range in which positive (HTMuon) and negative (DynMuon, Freon) powers were published.
POWER_RANGE = (-0.25, 1.0)
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _number(accepts: Callable[[Any], bool], wanted: str, *, tensors: bool = True) -> Check:
    """Return a check that a number, or a tensor that holds one, is in a range."""

    def check(name: str, value: Any) -> None:
        if not (isinstance(value, Real) or (tensors and isinstance(value, Tensor) and value.numel() == 1)):
            hint = ", without quotes" if isinstance(value, str) else ""
            raise TypeError(f"expected {name} to be a number{hint}, got {value!r}")
        if not accepts(value):  # NaN is in no range
            raise ValueError(f"expected {name} {wanted}, got {value}")

    return check


def _whole_number(name: str, value: Any) -> None:
    if not isinstance(value, int):
        raise TypeError(f"expected {name} to be a whole number >= 1, got {value!r}")
    if value < 1:
        raise ValueError(f"expected {name} to be a whole number >= 1, got {value}")


def _switch(name: str, value: Any) -> None:
    if not isinstance(value, int):  # a bool is an int, and 0 and 1 have always been taken
        raise TypeError(f"expected {name} to be True or False, got {value!r}")


def _one_of(literal: Any) -> Check:
    """Return a check that a value is one of the names of a ``Literal``."""
    names = get_args(literal)

    def check(name: str, value: Any) -> None:
        wanted = f"expected {name} to be one of {', '.join(names)}, got {value!r}"
        if not isinstance(value, str):
            raise TypeError(wanted)
        if value not in names:
            raise ValueError(f"{wanted}{_suggestion(value, names)}")

    return check


def _newton_schulz_steps(name: str, value: Any) -> None:
    wanted = f"expected {name} from {min(TABLES)} to {max(TABLES)}, got {value!r}"
    if not isinstance(value, int | None):
        raise TypeError(wanted)
    if value is not None and value not in TABLES:
        raise ValueError(wanted)


def _dtype(name: str, value: Any) -> None:
    wanted = f"expected {name} to be one of {', '.join(str(dtype) for dtype in DTYPES)}, got {value!r}"
    if not isinstance(value, torch.dtype | None):
        raise TypeError(wanted)
    if value is not None and value not in DTYPES:
        raise ValueError(wanted)


def _betas(name: str, value: Any) -> None:
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise TypeError(f"expected {name} to be two numbers, got {value!r}")
    betas = list(value)
    if len(betas) != 2:
        raise ValueError(f"expected {name} to be two numbers, got {value!r}")
    for beta in betas:
        _FRACTION(name, beta)


def _split(name: str, value: Any) -> None:
    sizes = isinstance(value, list | tuple) and all(isinstance(size, Integral) for size in value)
    if not (sizes or isinstance(value, int | None)):
        raise TypeError(f"expected {name} to be a number of parts or a tuple of their sizes, got {value!r}")


def _split_dim(name: str, value: Any) -> None:
    wanted = f"expected {name} 0 (rows) or 1 (columns), got {value!r}"
    if not isinstance(value, int):
        raise TypeError(wanted)
    if value not in {0, 1}:
        raise ValueError(wanted)


_NOT_NEGATIVE = _number(lambda value: value >= 0, ">= 0")
_FRACTION = _number(lambda value: 0 <= value < 1, "in [0, 1)")
_POWER = _number(
    lambda value: POWER_RANGE[0] <= value <= POWER_RANGE[1],
    f"in [{POWER_RANGE[0]}, {POWER_RANGE[1]:g}] (0 is Muon, 1 is the momentum itself)",
    tensors=False,
)

# Every setting of a parameter group, with its check. The default of each stands in HTMuon's signature.
SETTINGS: dict[str, Check] = {
    "lr": _NOT_NEGATIVE,
    "power": _POWER,
    "momentum": _FRACTION,
    "nesterov": _switch,
    "weight_decay": _NOT_NEGATIVE,
    "scale": _one_of(Scale),
    "row_normalize": _switch,
    "method": _one_of(Method),
    "adamw_lr": _NOT_NEGATIVE,
    "betas": _betas,
    "eps": _NOT_NEGATIVE,
    "steps": _newton_schulz_steps,
    "dtype": _dtype,
    "interval": _whole_number,
    "adjust_lr": _one_of(AdjustLR),
    "row_beta": _FRACTION,
    "cautious": _switch,
    "layout": _one_of(Layout),
    "split": _split,
    "split_dim": _split_dim,
    "momentum_dtype": _dtype,
    "compile": _switch,
}
ADAMW_ONLY = frozenset({"adamw_lr", "betas", "eps"})
READING = frozenset({"layout", "split", "split_dim"})
# Keys that HTMuon and torch keep in a group beside the settings, so that a group of one optimizer can be given to another.
BOOKKEEPING = frozenset({"params", "param_names", "algorithm", "step", "power_schedule", "last_momentum"})
# Keys that others read from groups: torch's schedulers, Lightning's LearningRateMonitor (name) and timm (lr_scale).
FOREIGN_KEYS = frozenset(
    {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr", "name", "lr_scale"}
)
_check_algorithm = _one_of(Algorithm)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for the first setting with a wrong value; names that are no settings are ignored."""
    for name, value in settings.items():
        check = SETTINGS.get(name)
        if check is not None:
            check(name, value)


def check_algorithm(algorithm: Any) -> None:
    """Raise TypeError or ValueError if the algorithm of a group is unknown."""
    _check_algorithm("algorithm", algorithm)


def check_group_keys(group: Mapping[str, Any]) -> None:
    """Raise ValueError if a parameter group has keys that neither HTMuon nor a known tool reads."""
    problem = unknown_names(set(group) - BOOKKEEPING - FOREIGN_KEYS, ("algorithm", *SETTINGS))
    if problem is not None:
        raise ValueError(
            f"{problem} in a parameter group; keys of your own can be set in optimizer.param_groups afterwards"
        )


def unknown_names(given: Iterable[str], known: Iterable[str]) -> str | None:
    """Return a message about the given names that are not known, or None if all are."""
    known = tuple(known)
    unknown = [f"{name!r}{_suggestion(str(name), known)}" for name in sorted(set(given) - set(known), key=str)]
    return f"expected settings among {', '.join(known)}, got {', '.join(unknown)}" if unknown else None


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
