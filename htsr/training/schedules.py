"""Schedules: functions of the step that say whether to capture it.

Any ``step -> bool`` will do; these three cover most needs. They keep no state, so every rank and every resumed run gets the
same answer.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Integral

CaptureSchedule = Callable[[int], bool]


def every(n: int) -> CaptureSchedule:
    """Every n-th step.

    Args:
        n: Steps between captures.

    Returns:
        The schedule.

    Raises:
        TypeError: If ``n`` is not a whole number.
        ValueError: If ``n`` is below 1.

    Example:
        >>> [step for step in range(1, 10) if every(3)(step)]
        [3, 6, 9]
    """
    check_whole("n", n, 1)
    return lambda step: step % n == 0


def log_spaced(per_decade: int = 10, *, first: int = 1) -> CaptureSchedule:
    """Steps at equal ratios: dense at the start, where spectra move fastest, and ever sparser afterwards.

    Args:
        per_decade: Captures while the step grows tenfold. 10, the default, makes 51 captures of 100,000 steps.
        first: The first step that is captured.

    Returns:
        The schedule.

    Raises:
        TypeError: If one is not a whole number.
        ValueError: If one is below 1.

    Example:
        >>> [step for step in range(1, 1001) if log_spaced(4)(step)]
        [1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000]
    """
    check_whole("per_decade", per_decade, 1)
    check_whole("first", first, 1)

    def due(step: int) -> bool:
        if step < first:
            return False
        nearest = round(per_decade * math.log10(step / first))
        return step == round(first * 10 ** (nearest / per_decade))

    return due


def at(steps: Iterable[int]) -> CaptureSchedule:
    """These steps and no others.

    Args:
        steps: The steps.

    Returns:
        The schedule.

    Raises:
        TypeError: If they are not a collection of whole numbers.
        ValueError: If there are none, or one is negative.

    Example:
        >>> [step for step in range(1, 10) if at([2, 7])(step)]
        [2, 7]
    """
    if not isinstance(steps, Iterable):
        raise TypeError(f"expected steps such as at([10, 1000]), got {steps!r}")
    wanted = frozenset(steps)
    if not wanted:
        raise ValueError("expected steps such as at([10, 1000]), got none")
    for step in wanted:
        check_whole("step", step, 0)
    return wanted.__contains__


def check_whole(name: str, value: object, minimum: int) -> None:
    """Raise ``TypeError`` if a value is not a whole number, and ``ValueError`` if it is below the minimum."""
    if not isinstance(value, Integral):
        raise TypeError(f"expected a whole number, got {name}={value!r}")
    if int(value) < minimum:
        raise ValueError(f"expected a whole number from {minimum} on, got {name}={value!r}")
