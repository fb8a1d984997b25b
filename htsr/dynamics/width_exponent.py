"""The power of the width with which something grows, and what to call it."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

# Theory knows multiples of 1/2 (arXiv 2310.17813), so half of the smallest of them tells "flat" from "grows".
FLAT = 0.25
# The verdict speaks of the interval of this level.
LEVEL = 0.95
NOT_TOLD_APART = "not told apart from flat"


@dataclass(frozen=True)
class WidthExponent:
    """The exponent of a power law in the width.

    Attributes:
        exponent: The slope of log(value) on log(width); NaN if it cannot be fitted.
        error: Its standard error; NaN with fewer than two values beyond what the fit needs.
        low: Lower end of the 95 % interval, by Student's t; -inf without an error.
        high: Upper end.
    """

    exponent: float
    error: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says: flat, grows, vanishes, or not told apart from flat; empty if there is no exponent.

        Flat means that the whole interval lies within 1/4 of zero, growing and vanishing that it leaves zero out.
        """
        if math.isnan(self.exponent):
            return ""
        if -FLAT < self.low and self.high < FLAT:
            return "flat"
        if self.low > 0 or self.high < 0:
            return f"{'grows' if self.low > 0 else 'vanishes'} as width^{self.exponent:.1f}"
        return NOT_TOLD_APART


def fit_width_exponent(
    widths: Sequence[float], values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> WidthExponent:
    """Return the exponent of positive values by least squares on logarithms, with an intercept for each group.

    A group is what shares a level at all widths: the values of one seed, or of one place in depth. The standard error is that
    of the slope, with a degree of freedom less for each group, so it counts what differs between seeds and how far the values
    of a seed are from a power law.
    """
    x, y = np.log(np.asarray(widths, dtype=float)), np.log(np.asarray(values, dtype=float))
    number = np.unique([0] * len(x) if groups is None else [str(group) for group in groups], return_inverse=True)[1]
    counts = np.bincount(number)
    x -= (np.bincount(number, x) / counts)[number]
    y -= (np.bincount(number, y) / counts)[number]
    square = float(x @ x)
    if square < 1e-12 * len(x):  # one width
        return WidthExponent(math.nan, math.nan, -math.inf, math.inf)
    exponent = float(x @ y) / square
    freedom = len(x) - len(counts) - 1
    if freedom < 1:
        return WidthExponent(exponent, math.nan, -math.inf, math.inf)
    from scipy.special import stdtrit

    residuals = y - exponent * x
    error = math.sqrt(float(residuals @ residuals) / freedom / square)
    margin = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return WidthExponent(exponent, error, exponent - margin, exponent + margin)
