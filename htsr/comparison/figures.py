"""Numbers of a change, written for people."""

import math


def percent(share: float) -> str:
    """Return a share in percent: ``0.13``, ``2.1``, ``185``."""
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def factors_text(low: float, high: float) -> str:
    """Return one factor, or the range of several, with enough digits to tell them from 1: ``1.7``, ``1.0001``, ``0.5 to 2``."""
    same = high - low <= 1e-4 * min(abs(low - 1), abs(low)) or high == low
    return _factor(low) if same else f"{_factor(low)} to {_factor(high)}"


def _factor(value: float) -> str:
    apart = abs(value - 1)
    more = -math.floor(math.log10(apart)) if 0 < apart < 1 else 0
    return f"{value:.{min(3 + max(more, 1), 15)}g}"
