"""Schedules of the power p: functions from the number of steps done to p."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PowerSchedule = Callable[[int], float] | Sequence[float]


def power_at(schedule: PowerSchedule, step: int) -> float:
    """Return p after so many steps; the last value of a list holds for all later steps."""
    return schedule(step) if callable(schedule) else schedule[min(step, len(schedule) - 1)]


@dataclass(frozen=True)
class LinearPower:
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

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        """Return p after ``step`` steps."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class CosinePower:
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

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    def __call__(self, step: int) -> float:
        """Return p after ``step`` steps."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(step / self.steps, 1.0))) / 2


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


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int | float):
        raise TypeError(f"expected steps to be a number, got {steps!r}")
    if steps < 1:
        raise ValueError(f"expected steps >= 1, got {steps}")
