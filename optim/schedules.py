"""Schedules of the power p: from an optimizer step to a number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from htsr.errors import InputError

Schedule = Callable[[int], float] | Sequence[float]


def power_at(schedule: Schedule, step: int) -> float:
    """The power of a step.

    Args:
        schedule: A function of the step, or one value for each step; the last holds for all later ones.
        step: Steps done before this one.

    Returns:
        p.
    """
    return schedule(step) if callable(schedule) else schedule[min(step, len(schedule) - 1)]


@dataclass(frozen=True)
class LinearPower:
    """From ``start`` to ``end`` in equal changes over ``steps`` steps, then constant.

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
        """The power of a step."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class CosinePower:
    """From ``start`` to ``end`` along half a cosine over ``steps`` steps, then constant.

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
        """The power of a step."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(step / self.steps, 1.0))) / 2


@dataclass(frozen=True)
class StepPower:
    """Constant between the steps at which it changes.

    Args:
        values: The step from which each power holds; step 0 among them.

    Example:
        >>> schedule = StepPower({0: 0.25, 1000: 0.0})
        >>> schedule(999), schedule(1000)
        (0.25, 0.0)
    """

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        if 0 not in self.values or min(self.values) < 0:
            raise InputError(f"expected the power from step 0 on, got values for steps {sorted(self.values)}")

    def __call__(self, step: int) -> float:
        """The power of a step."""
        return self.values[max(first for first in self.values if first <= step)]


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"expected steps >= 1, got {steps}")
