"""Parameter groups of an optimizer: one for each steered matrix, and settings that hold for one step only."""

import gc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from htsr.optim.schedules import read_schedule

Group = dict[str, Any]


def split_groups(optimizer: Optimizer, owners: Mapping[int, str]) -> None:
    """Give the parameters of each owner groups of their own.

    ``owners`` names the owner of a parameter by its id; parameters without one stay together. A new group has all settings of
    the group that it came from. The optimizer's state stays as it is, since torch keeps it by parameter. The list of groups
    stays the same object, because wrappers and schedulers hold it.
    """
    split = [_parts(group, owners) for group in optimizer.param_groups]
    if any(len(parts) > 1 for parts in split) and _has_scheduler(optimizer):
        raise ValueError(
            "expected an optimizer without a learning-rate scheduler, which has already counted the groups that are about to be "
            "split: create the LayerwiseSchedule first and the scheduler after it. If there is none and its mark came with a "
            "checkpoint, remove 'initial_lr' from the optimizer's groups"
        )
    optimizer.param_groups[:] = [part for parts in split for part in parts]


def _has_scheduler(optimizer: Optimizer) -> bool:
    """Say whether a learning-rate scheduler has counted the optimizer's groups."""
    marked = hasattr(optimizer.step, "_wrapped_by_lr_sched") or any("initial_lr" in g for g in optimizer.param_groups)
    # ReduceLROnPlateau leaves no mark on the optimizer, so look for one that holds it. Types are compared, since
    # isinstance reads __class__, which runs code of lazy modules and proxies.
    return marked or any(
        issubclass(type(thing), ReduceLROnPlateau) and thing.optimizer is optimizer for thing in gc.get_objects()
    )


def _parts(group: Group, owners: Mapping[int, str]) -> list[Group]:
    """Return the group's parts, one for each owner, in the order of their first parameters; a whole group stays itself."""
    members: dict[str | None, list[int]] = {}
    for place, parameter in enumerate(group["params"]):
        members.setdefault(owners.get(id(parameter)), []).append(place)
    if len(members) < 2:
        return [group]
    parts: list[Group] = []
    for places in members.values():
        settings = {name: value.clone() if isinstance(value, Tensor) else value for name, value in group.items()}
        for listed in ("params", "param_names"):
            if listed in group:
                settings[listed] = [group[listed][place] for place in places]
        parts.append(settings)
    return parts


def steerable(optimizer: Optimizer, setting: str) -> set[int]:
    """Return the ids of the parameters that an optimizer holds in groups with the setting; a weight decay of 0 is none."""
    if isinstance(optimizer, LBFGS):
        raise ValueError("expected an optimizer with a group for each layer, got LBFGS, which steps all layers as one")
    return {
        id(p)
        for group in optimizer.param_groups
        if setting in group and not (setting == "weight_decay" and setting_of(group, setting) == 0)
        for p in group["params"]
    }


class Swap:
    """Puts other values of a setting into groups for one step, and puts the groups' own back.

    Between steps the groups hold what the user and the schedulers wrote, so nothing compounds, and a learning-rate scheduler
    need not know of the steering.
    """

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self._own: list[tuple[Group, Any, Any]] = []  # group, its own value, its schedule of the power

    def put(self, group: Group, value: float, *, factor: bool) -> None:
        """Put a value into a group, or its own value times a factor."""
        if self.setting == "power":
            read_schedule(group)  # else HTMuon would read the schedule in its step, over our value
        own = group[self.setting]
        self._own.append((group, own, group.pop("power_schedule", None) if self.setting == "power" else None))
        group[self.setting] = own * value if factor else value

    def restore(self) -> None:
        """Put the groups' own values back."""
        while self._own:
            group, own, schedule = self._own.pop()
            group[self.setting] = own
            if schedule is not None:
                group["power_schedule"] = schedule


def setting_of(group: Group, setting: str) -> float | None:
    """Return a group's setting as a number, or None if it has none."""
    value = group.get(setting)
    return float(value) if isinstance(value, int | float | torch.Tensor) else None
