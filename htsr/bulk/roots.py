"""Brent's method for a root of a function of one variable."""

import sys
from collections.abc import Callable

# As scipy's: no root is known more sharply than four units of the last place.
RELATIVE_TOLERANCE = 4 * sys.float_info.epsilon


def brent(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Return a root of a function that has opposite signs at ``low`` and ``high``, to within the tolerance.

    Notes:
        Brent (1973), chapter 4, in the arithmetic of ``scipy.optimize.brentq``: the roots are equal to the last bit. The import
        of ``scipy.optimize`` takes 0.4 s, longer than a small audit, and brings nothing else that is used here.
    """
    before, now = low, high
    f_before, f_now = function(before), function(now)
    if f_before == 0 or f_now == 0:
        return before if f_before == 0 else now
    assert (f_before < 0) != (f_now < 0), "expected opposite signs"
    other, f_other, step, step_before = before, f_before, 0.0, 0.0
    while True:
        if f_before and f_now and (f_before < 0) != (f_now < 0):  # the root lies between the last two places
            other, f_other = before, f_before
            step = step_before = now - before
        if abs(f_other) < abs(f_now):  # the best place is the one to go on from
            before, now, other = now, other, now
            f_before, f_now, f_other = f_now, f_other, f_now
        smallest = (tolerance + RELATIVE_TOLERANCE * abs(now)) / 2
        half = (other - now) / 2
        if f_now == 0 or abs(half) < smallest:
            return now
        bisects = True
        if abs(step_before) > smallest and abs(f_now) < abs(f_before):
            if before == other:  # secant
                tried = -f_now * (now - before) / (f_now - f_before)
            else:  # inverse quadratic interpolation
                slope, slope_other = (f_before - f_now) / (before - now), (f_other - f_now) / (other - now)
                tried = (
                    -f_now * (f_other * slope_other - f_before * slope) / (slope_other * slope * (f_other - f_before))
                )
            bisects = 2 * abs(tried) >= min(abs(step_before), 3 * abs(half) - smallest)
        step_before, step = (half, half) if bisects else (step, tried)
        before, f_before = now, f_now
        now += step if abs(step) > smallest else (smallest if half > 0 else -smallest)
        f_now = function(now)
