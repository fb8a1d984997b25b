"""When to look: schedules are functions of the step.

Any ``step -> bool`` will do; these three cover most needs. They keep no state, so that every rank and every resumed run
comes to the same answer.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Integral

Schedule = Callable[[int], bool]


def every(n: int) -> Schedule:
    """Every n-th step.

    Args:
        n: Steps between captures.

    Returns:
        The schedule.

    Raises:
        ValueError: If ``n`` is no whole number from 1 on.

    Example:
        >>> [step for step in range(1, 10) if every(3)(step)]
        [3, 6, 9]
    """
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"expected a whole number of steps from 1 on, got {n!r}")
    return lambda step: step % n == 0


def log_spaced(per_decade: int = 10, *, first: int = 1) -> Schedule:
    """Steps at equal ratios: dense at the start, where spectra move fastest, and ever sparser.

    Args:
        per_decade: Captures while the step grows tenfold. 10, the default, makes 51 captures of 100,000 steps.
        first: The first step that is captured.

    Returns:
        The schedule.

    Raises:
        ValueError: If one is no whole number from 1 on.

    Example:
        >>> [step for step in range(1, 1001) if log_spaced(4)(step)]
        [1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000]
    """
    for number in (per_decade, first):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"expected whole numbers from 1 on, got per_decade={per_decade!r}, first={first!r}")

    def due(step: int) -> bool:
        if step < first:
            return False
        place = round(per_decade * math.log10(step / first))
        return step == round(first * 10 ** (place / per_decade))

    return due


def at(steps: Iterable[int]) -> Schedule:
    """These steps and no others.

    Args:
        steps: The steps.

    Returns:
        The schedule.

    Raises:
        ValueError: If there are none, or they are no whole numbers.

    Example:
        >>> [step for step in range(1, 10) if at([2, 7])(step)]
        [2, 7]
    """
    wanted = frozenset(steps) if isinstance(steps, Iterable) else frozenset()
    if not wanted or not all(isinstance(step, Integral) and step >= 0 for step in wanted):
        raise ValueError(f"expected whole numbers of steps such as at([10, 1000]), got {steps!r}")
    return wanted.__contains__
