"""The scan for xmin of Clauset, Shalizi and Newman (2009), section 3.3: a plain one and a pruned one with the same answer.

Shapes: x holds n positive values, ascending; s candidates for xmin; i is a candidate's index in x, k = n - i the number
of values in its tail, a = alpha - 1.
"""

from typing import NamedTuple

import numpy as np

# The pruned scan first evaluates every candidate's tail at this many ranks. 8 to 24 took the same time.
NUM_PROBES = 12
# Logarithm of the largest float64.
LOG_LARGEST = float(np.log(np.finfo(np.float64).max))


class KS(NamedTuple):
    """Options of the Kolmogorov-Smirnov distance between tail and fit.

    Attributes:
        two_sided: Compare the fit with both sides of each step of the empirical distribution. Clauset's reference code,
            powerlaw and WeightWatcher use the lower side only, ``(0, ..., k-1)/k``; the textbook distance can be larger by up
            to 1/k.
        truncated: Let the fitted distribution end at the largest value, as powerlaw 1.5 does if it is given an xmax (its
            likelihood, and so alpha, ignores xmax).
    """

    two_sided: bool = False
    truncated: bool = False


ONE_SIDED = KS()


class Tail(NamedTuple):
    """A fitted tail.

    Attributes:
        start: Index of its first value.
        alpha: Its exponent.
        D: Its KS distance.
        xmin: Where it starts: its first value, unless the rule sets xmin below that value.
    """

    start: int
    alpha: float
    D: float
    xmin: float


def candidates(x: np.ndarray) -> np.ndarray:
    """Return the indices of positive, ascending values at which a tail may start.

    These are the first occurrences of each distinct value but the largest. A tail holds every value from its start on, so a
    later copy of the same value would not start another tail. Values whose float64 logarithms are equal count as copies.
    """
    log_x = np.log(x)
    first = np.concatenate([[True], log_x[1:] > log_x[:-1]])
    return np.flatnonzero(first & (log_x < log_x[-1]))


def fit_exponent(log_tail: np.ndarray, log_xmin: float) -> float:
    """Return the maximum-likelihood exponent of a tail from its natural logarithms (Clauset et al. 2009, eq. 3.1).

    It is infinite if the values differ by less than the rounding of their sum.
    """
    k = float(len(log_tail))
    spread = np.sum(log_tail) - k * log_xmin
    return float(1 + k / spread) if spread > 0 else float("inf")


def deviations(tail: np.ndarray, alpha: float, xmin: float, ks: KS = ONE_SIDED) -> np.ndarray:
    """Return the fitted distribution function minus the share of the tail strictly below, at each of its ascending values.

    This is eq. 3.9 of Clauset et al. (2009) before the maximum.
    """
    k = float(len(tail))
    with np.errstate(over="ignore"):
        ratio = tail / xmin
        if np.isinf(ratio[-1]):  # 1e300 / 1e-300
            F = 1 - np.exp((-alpha + 1) * (np.log(tail) - np.log(xmin)))
        else:
            F = 1 - ratio ** (-alpha + 1)
    if ks.truncated:
        F = F / F[-1]
    return F - np.arange(k) / k


def distance(deviation: np.ndarray, ks: KS = ONE_SIDED) -> float:
    """Return the KS distance that belongs to these ``deviations``."""
    D = np.max(np.abs(deviation))
    if ks.two_sided:
        D = max(D, np.max(np.abs(deviation - 1 / len(deviation))))
    return float(D)


def scan_all(
    x: np.ndarray, starts: np.ndarray | None = None, ks: KS = ONE_SIDED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every candidate's index in ``x``, alpha and D: the plain scan, which fits a power law from each one, O(n^2).

    ``x`` holds positive, ascending float64 values; ``starts`` are all candidates by default.

    Notes:
        The arithmetic, down to the order of summation, is that of WeightWatcher's ``WWFit`` and powerlaw 1.5, so the numbers
        agree to the last bit.
    """
    starts = candidates(x) if starts is None else starts
    log_x = np.log(x)
    alphas, distances = np.empty(len(starts)), np.empty(len(starts))
    for row, i in enumerate(starts):
        alphas[row] = fit_exponent(log_x[i:], log_x[i])
        distances[row] = distance(deviations(x[i:], alphas[row], x[i], ks), ks)
    return starts, alphas, distances


def scan_best(x: np.ndarray, starts: np.ndarray | None = None, ks: KS = ONE_SIDED) -> Tail | None:
    """Return the candidate with the smallest D, the first one if several tie, or None without candidates.

    The answer is that of ``scan_all`` to the last bit, but few candidates are fitted. ``x`` and ``starts`` as in ``scan_all``.

    Notes:
        This is a cutting-plane search. One cumulative sum gives the exponents of all candidates. D is a maximum over the tail,
        so its value at any one rank is a lower bound: the search first evaluates a few ranks for all candidates at once. It
        then fits the candidate with the lowest bound in full, with the plain expressions, and evaluates all others at the two
        ranks where *that* candidate deviates most. Neighbours deviate most at nearly the same values, so the bounds become
        tight at once and nearly all candidates drop out above the best D. Two to six full fits suffice on Pareto, lognormal,
        exponential, uniform and Marchenko-Pastur samples of 100 to 16384 values.

        ``_slack`` bounds the rounding errors of the bound and of the plain expression together, so the search never drops a
        candidate that the plain scan would prefer.
    """
    starts = candidates(x) if starts is None else starts
    if not len(starts):
        return None
    n, log_x = len(x), np.log(x)
    k, log_start = (n - starts).astype(np.float64), log_x[starts]
    # sum over the tail of log x_j - log x_i, as a sum of non-negative terms: nothing cancels
    spread = np.cumsum(np.arange(1, n) * np.diff(log_x)[::-1])[::-1][starts]
    a = k / spread
    bounds = _Bounds(log_x, starts, k, log_start, a, _slack(log_x, starts, k, a, spread, ks), ks)

    ranks = ((np.arange(NUM_PROBES) + 0.5) / NUM_PROBES * k[:, None]).astype(np.intp)
    bounds.raise_at_ranks(ranks)
    best: tuple[float, int, float] | None = None
    while len(bounds):
        lowest = bounds.argmin()
        if best is not None and bounds.low[lowest] > best[0]:
            break
        i = int(bounds.starts[lowest])
        alpha = fit_exponent(log_x[i:], log_x[i])
        deviation = deviations(x[i:], alpha, x[i], ks)
        found = (distance(deviation, ks), i, alpha)
        best = found if best is None else min(best, found)
        bounds.drop(lowest)
        for rank in {int(deviation.argmax()), int(deviation.argmin())}:
            bounds.raise_at_index(i + rank)
        bounds.keep_up_to(best[0])
    assert best is not None
    D, start, alpha = best
    return Tail(start, alpha, D, float(x[start]))


class _Bounds:
    """Lower bounds on the D of the candidates that can still win; all arrays have the same length."""

    def __init__(
        self,
        log_x: np.ndarray,
        starts: np.ndarray,
        k: np.ndarray,
        log_start: np.ndarray,
        a: np.ndarray,
        slack: np.ndarray,
        ks: KS,
    ) -> None:
        self.log_x, self.ks = log_x, ks
        self.starts, self.k, self.log_start, self.a, self.slack = starts, k, log_start, a, slack
        self.low = np.full(len(starts), -np.inf)

    def __len__(self) -> int:
        return len(self.starts)

    def argmin(self) -> int:
        """Return the row with the lowest bound."""
        return int(np.argmin(self.low))

    def raise_at_ranks(self, ranks: np.ndarray) -> None:
        """Raise the bounds to the distances at some ranks of each tail, shape ``(s, probes)``."""
        rows = slice(None), None
        log_ratio = self.log_x[self.starts[rows] + ranks] - self.log_start[rows]
        low = self._distance_at(log_ratio, ranks, self.a[rows], self.k[rows], self.log_start[rows]).max(axis=1)
        self.low = np.maximum(self.low, low - self.slack)

    def raise_at_index(self, index: int) -> None:
        """Raise the bounds of the candidates whose tail contains ``x[index]``: the leading ones, because starts ascend."""
        part = slice(0, int(np.searchsorted(self.starts, index, side="right")))
        log_ratio = self.log_x[index] - self.log_start[part]
        low = self._distance_at(log_ratio, index - self.starts[part], self.a[part], self.k[part], self.log_start[part])
        np.maximum(self.low[part], low - self.slack[part], out=self.low[part])

    def keep_up_to(self, D: float) -> None:
        """Remove the candidates whose bound exceeds ``D``."""
        self._take(self.low <= D)

    def drop(self, row: int) -> None:
        """Remove one candidate."""
        keep = np.ones(len(self), dtype=bool)
        keep[row] = False
        self._take(keep)

    def _take(self, keep: np.ndarray) -> None:
        """Keep the candidates for which ``keep`` is true."""
        self.starts, self.k, self.log_start = self.starts[keep], self.k[keep], self.log_start[keep]
        self.a, self.slack, self.low = self.a[keep], self.slack[keep], self.low[keep]

    def _distance_at(
        self, log_ratio: np.ndarray, rank: np.ndarray, a: np.ndarray, k: np.ndarray, log_start: np.ndarray
    ) -> np.ndarray:
        """Return how far fit and tail deviate at some ranks of each candidate's tail."""
        F = -np.expm1(-a * log_ratio)
        if self.ks.truncated:
            F /= -np.expm1(-a * (self.log_x[-1] - log_start))
        deviation = F - rank / k
        if self.ks.two_sided:
            return np.maximum(np.abs(deviation), np.abs(deviation - 1 / k))
        return np.abs(deviation)


def _slack(
    log_x: np.ndarray, starts: np.ndarray, k: np.ndarray, a: np.ndarray, spread: np.ndarray, ks: KS
) -> np.ndarray:
    """Return for each candidate how far rounding can move its bound and the plain D apart.

    ``np.sum`` over k terms errs by at most about log2(k) eps times the sum of their sizes, so the plain a has a relative error
    of that over ``spread``, and F = 1 - exp(-a t) moves by less than it (t exp(-t) < 1). The plain power works on rounded
    ratios and the bound on rounded logarithms, which adds a |log x| eps for each. The factors leave room.
    """
    eps = np.finfo(np.float64).eps
    sizes = np.cumsum(np.abs(log_x)[::-1])[::-1][starts] + k * np.abs(log_x[starts])
    largest = np.abs(log_x[[0, -1]]).max()
    slack = eps * (16 + 4 * a * (1 + largest) + 4 * (1 + np.log2(k)) * sizes / spread + 4 * len(log_x))
    if ks.truncated:
        slack = slack * 4 / -np.expm1(-a * (log_x[-1] - log_x[starts]))
    return slack
