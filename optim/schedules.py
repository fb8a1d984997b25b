"""Schedules of the power p, which are functions from the number of steps done to p, and what schedules do to groups."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PowerSchedule = Callable[[int], float] | Sequence[float]


def power_at(schedule: PowerSchedule, step: int) -> float:
    """Return p after so many steps; the last value of a list holds for all later steps."""
    return schedule(step) if callable(schedule) else schedule[min(step, len(schedule) - 1)]


def read_schedule(group: dict[str, Any]) -> None:
    """Move a schedule given as ``power`` to ``power_schedule``, and set ``power`` to its value for this step."""
    if "power" not in group:
        return
    if callable(group["power"]) or isinstance(group["power"], list | tuple):
        group["power_schedule"] = group["power"]
    schedule = group.get("power_schedule")
    if schedule is not None:
        group["power"] = float(power_at(schedule, group["step"]))


def drop_power(groups: Iterable[dict[str, Any]]) -> None:
    """Take the power, which torch gives to each group as a default, out of the groups that AdamW updates."""
    for group in groups:
        if group["algorithm"] == "adamw":
            group.pop("power", None)
            group.pop("power_schedule", None)


def join_momentum(group: dict[str, Any]) -> None:
    """Make ``momentum`` and ``betas[0]`` of matrices one number: the one that was changed since the last step.

    torch's OneCycleLR and CyclicLR write ``betas[0]`` in all groups of an optimizer that has ``betas``.
    """
    if group["algorithm"] != "htmuon":
        return
    last = group.get("last_momentum")
    if last is not None and group["momentum"] == last:
        group["momentum"] = group["betas"][0]
    group["last_momentum"] = group["momentum"]
    group["betas"] = (group["momentum"], *group["betas"][1:])


@dataclass(frozen=True)
class _PowerChange:
    """A power that goes from ``start`` to ``end`` over ``steps`` steps, then stays."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int | float):
            raise TypeError(f"expected steps to be a number, got {self.steps!r}")
        if not self.steps >= 1:
            raise ValueError(f"expected steps >= 1, got {self.steps}")

    def __call__(self, step: int) -> float:
        """Return p after ``step`` steps."""
        done = self._part_done(min(step / self.steps, 1.0))
        return (1 - done) * self.start + done * self.end  # exact at both ends

    @staticmethod
    def _part_done(fraction: float) -> float:
        """Return which part of the change is done after a fraction of the steps."""
        raise NotImplementedError


class LinearPower(_PowerChange):
    """A power that goes from ``start`` to ``end`` in equal changes over ``steps`` steps, then stays.

    Args:
        start: The power in the first step.
        end: The power after ``steps`` steps.
        steps: How many steps the change takes.

    Raises:
        TypeError: If ``steps`` is not a number.
        ValueError: If ``steps`` is less than 1.

    Example:
        >>> LinearPower(0.5, 0.0, steps=10)(5)
        0.25
    """

    @staticmethod
    def _part_done(fraction: float) -> float:
        return fraction


class CosinePower(_PowerChange):
    """A power that goes from ``start`` to ``end`` along half a cosine over ``steps`` steps, then stays.

    Args:
        start: The power in the first step.
        end: The power after ``steps`` steps.
        steps: How many steps the change takes.

    Raises:
        TypeError: If ``steps`` is not a number.
        ValueError: If ``steps`` is less than 1.

    Example:
        >>> CosinePower(0.5, 0.0, steps=10)(5)
        0.25
    """

    @staticmethod
    def _part_done(fraction: float) -> float:
        return (1 - math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True)
class StepPower:
    """A power that changes at certain steps and stays in between.

    Args:
        values: The power from each of these steps on; step 0 must be among them.

    Raises:
        ValueError: If step 0 is missing or a step is negative.

    Example:
        >>> schedule = StepPower({0: 0.25, 1000: 0.0})
        >>> schedule(999), schedule(1000)
        (0.25, 0.0)
    """

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        if 0 not in self.values or min(self.values) < 0:
            raise ValueError(f"expected the power from step 0 on, got values for steps {sorted(self.values)}")

    def __call__(self, step: int) -> float:
        """Return p after ``step`` steps."""
        return self.values[max(first for first in self.values if first <= step)]
