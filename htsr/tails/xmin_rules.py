"""The rules that choose where a tail starts."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from htsr.tails.xmin_scan import KS, Tail, candidates, deviations, distance, fit_exponent, scan_best

XminName = Literal["ks", "median", "median-paper", "peak", "peak-as-published"]
XminRule = float | XminName
XMIN_RULES: tuple[XminName, ...] = get_args(XminName)
# The rules that choose the best of several candidates by KS distance.
SCANNED = ("ks", "peak", "peak-as-published")

LARGEST_FLOAT = float(np.finfo(np.float64).max)
# Bins of the histogram of log10 eigenvalues whose peak bounds xmin (AlphaPruning's xmin_peak).
PEAK_BINS, PEAK_LOW, PEAK_HIGH = 100, 0.95, 1.5


@dataclass(frozen=True)
class TailRule:
    """How a fit chose its tail: all that a resample needs to choose one the same way."""

    xmin: XminRule
    ks: KS
    num_left_out: int = 0


def check_xmin(xmin: object) -> None:
    """Raise a TypeError or ValueError unless ``xmin`` is a positive number or one of ``XMIN_RULES``."""
    number = isinstance(xmin, int | float | np.integer | np.floating) and not isinstance(xmin, bool)
    wanted = f"expected xmin to be a positive number or one of {', '.join(XMIN_RULES)}, got {xmin!r}"
    if not number and not isinstance(xmin, str):
        raise TypeError(wanted)
    if not (0 < xmin < LARGEST_FLOAT if number else xmin in XMIN_RULES):  # type: ignore[operator]
        raise ValueError(wanted)


def select_tail(x: np.ndarray, rule: TailRule) -> Tail | None:
    """Return the tail that a rule chooses from positive, ascending values, or None if it finds none."""
    if len(x) < 2 or x[0] == x[-1]:
        return None
    if rule.xmin == "ks":
        return scan_best(x, ks=rule.ks)
    if rule.xmin in SCANNED:
        starts = candidates(x)
        low, high = _peak_range(x, as_published=rule.xmin == "peak-as-published")
        return scan_best(x, starts[(x[starts] >= low) & (x[starts] <= high)], rule.ks)
    if rule.xmin == "median":
        xmin = float(x[len(x) // 2])
    elif rule.xmin == "median-paper":
        xmin = float(x[len(x) - len(x) // 2 - 1])
    else:
        xmin = float(rule.xmin)
    start = int(np.searchsorted(x, xmin, side="right" if rule.xmin == "median-paper" else "left"))
    tail = x[start:]
    if not len(tail) or tail[0] == tail[-1]:
        return None
    alpha = fit_exponent(np.log(tail), float(np.log(xmin)))
    return Tail(start, alpha, distance(deviations(tail, alpha, xmin, rule.ks), rule.ks), xmin)


def why_no_tail(x: np.ndarray, rule: TailRule) -> str:
    """Return the reason why ``select_tail`` found no tail."""
    if isinstance(rule.xmin, str):
        return f"no value can start a tail under xmin={rule.xmin!r}"
    return f"{int((x >= rule.xmin).sum())} of {len(x)} values at or above the given xmin={rule.xmin:g}"


def _peak_range(x: np.ndarray, *, as_published: bool) -> tuple[float, float]:
    """Return the bounds of xmin around the peak of the histogram of log10 x."""
    counts, edges = np.histogram(np.log10(x), bins=PEAK_BINS)
    peak = 10 ** edges[np.argmax(counts)]
    low = PEAK_LOW * peak
    return float(np.log10(low) if as_published else low), float(PEAK_HIGH * peak)
