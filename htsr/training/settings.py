"""The settings of a run: what its optimizers, torch's seed and the user's ``about=`` say of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from os import PathLike, fspath
from typing import Any

import torch
from torch.optim import Optimizer

from htsr.labels import LR, POWER, SEED, WEIGHT_DECAY
from htsr.training.optimizers import labels_of

# Settings of parameter groups that stand in run.json. ``History.groups`` has all of them, as they change.
GROUP_SETTINGS = (LR, POWER, WEIGHT_DECAY)
# What ``torch.initial_seed()`` returns as long as nobody has set a seed (c10's default_rng_seed_val).
TORCH_DEFAULT_SEED = 67280421310721


def settings_of(optimizers: Sequence[Optimizer], about: Mapping[str, object] | None) -> dict[str, object]:
    """Return the settings of a run, those of ``about`` last; where one has the name of another, it counts.

    A kind of parameter group is an optimizer or, in HTMuon, an algorithm. From the second kind on, the name of a setting
    begins with the kind, ``adamw_lr`` for instance, and the setting stands there only if its value is not the first kind's.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for label, optimizer in zip(labels_of(optimizers), optimizers, strict=True):
        for group in optimizer.param_groups:
            kinds.setdefault(str(group.get("algorithm", label)).lower(), []).append(group)
    settings: dict[str, object] = {}
    for name in GROUP_SETTINGS:
        for kind, groups in kinds.items():
            value = _one_value(name, groups)
            if value is not None and value != settings.get(name):
                settings[f"{kind}_{name}" if name in settings else name] = value
    seed = torch.initial_seed()
    if seed != TORCH_DEFAULT_SEED:
        settings[SEED] = seed
    return settings | {name: _plain(name, value) for name, value in (about or {}).items()}


def check_about(about: object) -> None:
    """Raise ``TypeError`` if ``about=`` is not a mapping from names to numbers, texts, truth values or None."""
    if about is None:
        return
    if not isinstance(about, Mapping):
        raise TypeError(f"expected about to be a dict such as {{'dropout': 0.1}}, got {about!r}")
    for name, value in about.items():
        if not isinstance(name, str):
            raise TypeError(f"expected about to have texts as names, got {name!r}")
        _plain(name, value)


def _one_value(name: str, groups: Iterable[Mapping[str, Any]]) -> object:
    """Return the value of a setting in all groups of a kind, both ends if it differs, or None if no group has it.

    Of a learning rate it is the one that schedules start from, and of a power the schedule. Norms and biases usually have no
    weight decay, so zeros do not count beside other decays.
    """
    schedules = {
        type(group["power_schedule"]).__name__ for group in groups if name == POWER and "power_schedule" in group
    }
    if schedules:
        return ", ".join(sorted(schedules))
    found = [group.get("initial_lr", group[name]) if name == LR else group[name] for group in groups if name in group]
    values = sorted({float(value) for value in found if isinstance(value, Real | torch.Tensor)})
    if name == WEIGHT_DECAY and len(values) > 1:
        values = [value for value in values if value]
    if len(values) > 1:
        return f"{values[0]:g} to {values[-1]:g}"
    return values[0] if values else None


def _plain(name: str, value: Any) -> object:
    """Return a setting as JSON can hold it, or refuse it."""
    if isinstance(value, PathLike):
        return str(fspath(value))
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of numpy's or torch's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON knows neither NaN nor infinity
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"expected about[{name!r}] to be a number, a text, True, False or None, got {value!r}")
