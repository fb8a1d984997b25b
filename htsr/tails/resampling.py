"""How sure a fit is: fits of resamples of a spectrum, each of which chooses its own xmin, and of shorter tails."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from htsr.tails.xmin_scan import LOG_LARGEST, Tail

# Fewer resamples do not even bracket the 97.5 % quantile.
MIN_RESAMPLES = 20

# Shorter tails than the fitted one reach down to this many halvings of its length, four for each, and to so many values.
HALVINGS, SHORTEST = 4, 15
# Intervals miss the exponent of resamples, which hide xmin less well than spectra do, in this share of the promised misses.
STRICTER = 0.7
# With fewer values in the tail, an xmin that is too low does not show, and intervals hold the true alpha too rarely.
RELIABLE_TAIL = 100

# A function that chooses xmin for an ascending sample and returns its tail, or None if there is no tail.
Select = Callable[[np.ndarray], Tail | None]


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


class Refits(NamedTuple):
    """Arrays with one entry for each resample that has a tail.

    Attributes:
        alpha: Exponents.
        xmin: Where the tails start.
        D: KS distances.
        n_tail: Numbers of values in the tails.
        low: Smallest log(alpha - 1) of the tail and of shorter ones.
        high: Largest one.
        again: KS distance of a resample of each resample; NaN where that has no tail.
    """

    alpha: np.ndarray
    xmin: np.ndarray
    D: np.ndarray
    n_tail: np.ndarray
    low: np.ndarray
    high: np.ndarray
    again: np.ndarray


def check_resampling(n_boot: int, seed: int, name: str = "n_boot") -> None:
    """Raise a TypeError or ValueError unless ``n_boot``, which the user knows by ``name``, and ``seed`` are such numbers.

    ``bootstrap`` may be 0 as well, for no resamples.
    """
    may_be_zero = name == "bootstrap"
    for what, value, least in ((name, n_boot, MIN_RESAMPLES), ("seed", seed, 0)):
        zero = "0, for no intervals, or " if what == "bootstrap" else ""
        message = f"expected {what} to be {zero}a whole number >= {least}, got {what}={value!r}"
        if not isinstance(value, int | np.integer):
            raise TypeError(message)
        if value < least and not (what == name and may_be_zero and value == 0):
            raise ValueError(message)


def check_level(level: float) -> None:
    """Raise a ValueError unless ``level`` is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"expected level between 0 and 1, got {level}")


def refit_resamples(
    x: np.ndarray, xmin: float, alpha: float, select: Select, *, shorter: bool, n_boot: int, seed: int
) -> Refits:
    """Return fits of semiparametric resamples of positive, ascending values, and of one resample of each of these.

    ``select`` chooses xmin and alpha of each anew; ``shorter`` says whether shorter tails count for ``low`` and ``high``.
    """
    rng, of_resamples = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    rows = []
    for _ in range(n_boot):
        sample = resample(x, xmin, alpha, rng)
        found = select(sample)
        if found is not None:
            again = select(resample(sample, found.xmin, found.alpha, of_resamples))
            low, high = range_of_exponents(sample[found.start :], found.alpha, shorter=shorter)
            rows.append(
                (found.alpha, found.xmin, found.D, len(x) - found.start, low, high, again.D if again else np.nan)
            )
    return Refits(*np.array(rows, dtype=np.float64).reshape(-1, len(Refits._fields)).T)


def resample(x: np.ndarray, xmin: float, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Return a semiparametric resample of positive, ascending values (Clauset et al. 2009, section 4.1), ascending.

    Each of its n values is, with probability n_tail / n, a draw from the power law with ``xmin`` and ``alpha``, and otherwise one
    of the values below xmin, drawn with replacement.
    """
    n = len(x)
    body = x[x < xmin]
    n_tail = rng.binomial(n, 1 - len(body) / n)
    log_tail = np.log(xmin) - np.log1p(-rng.random(n_tail)) / (alpha - 1)
    tail = np.exp(np.minimum(log_tail, LOG_LARGEST))  # an alpha close to 1 reaches beyond float64
    sample = np.concatenate([body[rng.integers(len(body), size=n - n_tail)], tail]) if len(body) else tail
    sample.sort()
    return sample


def share_as_far(D: float, refits: Refits) -> float:
    """Return the p-value of a KS distance: how often data that follow the power law have one as large.

    The share of resamples alone is too large, for the smallest of many distances lies below those of data drawn from the law that
    it fits. A fast double bootstrap (Davidson and MacKinnon 2007) measures by how much: resamples of the resamples lie below
    the resamples as these lie below the spectrum.
    """
    share = float(np.mean(refits.D >= D))
    return float(np.mean(refits.D >= np.nanquantile(refits.again, 1 - share)))


def range_of_exponents(tail: np.ndarray, alpha: float, *, shorter: bool) -> tuple[float, float]:
    """Return the smallest and the largest log(alpha - 1) of a tail, ascending values, and of shorter ones if these count.

    Below xmin a spectrum has another law. Where the two resemble each other, the smallest KS distance finds an xmin too low, and
    no resample shows it, since resamples follow a power law from that xmin on. The exponents of shorter tails do.
    """
    fitted = math.log(alpha - 1)
    lengths = (len(tail) / 2 ** (np.arange(1, 4 * HALVINGS + 1) / 4)).astype(int)
    lengths = lengths[lengths >= SHORTEST]
    if not shorter or not len(lengths):
        return fitted, fitted
    log_tail = np.log(tail[-lengths[0] :])
    spreads = np.cumsum(log_tail[::-1])[lengths - 1] - lengths * log_tail[len(log_tail) - lengths]
    exponents = np.log(lengths[spreads > 0] / spreads[spreads > 0])
    return min(fitted, *exponents), max(fitted, *exponents)


def bootstrap_interval(n_tail: int, low: float, high: float, alpha: float, refits: Refits, level: float) -> Interval:
    """Return an interval for alpha: the range of the exponents of its tail and shorter ones, and a margin on either side.

    ``low`` and ``high`` are that range of log(alpha - 1). On that scale the standard error for a given xmin is
    ``1 / sqrt(n_tail)`` for every alpha, so the distance of the true value from the range, times ``sqrt(n_tail)``, is close to
    pivotal. Its quantile over the resamples, whose true alpha is known and which choose their own xmin, is the margin; it is
    negative if the range alone covers too often.

    Notes:
        Measured by ``benchmarks/coverage.py``. Three other ways to widen were tried on the same draws: a longer margin without
        the range, a range of those shorter tails alone that differ by more than chance, and a margin around each end less
        what chance explains. Where body and tail resemble each other they covered .68, .82 and .89 at best.
    """
    true = math.log(alpha - 1)
    missed = np.maximum(refits.low - true, true - refits.high) * np.sqrt(refits.n_tail)
    margin = np.quantile(missed, 1 - STRICTER * (1 - level)) / math.sqrt(n_tail)
    ends = 1 + np.exp([min(low - margin, true), max(high + margin, true)])
    return Interval(float(ends[0]), float(ends[1]))


def percentile_interval(values: np.ndarray, level: float) -> Interval:
    """Return the interval that holds the middle share ``level`` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
