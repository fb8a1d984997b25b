"""The scan for xmin of Clauset, Shalizi and Newman (2009), section 3.3: plain, and pruned to the same answer.

Shapes: x holds n positive values, ascending; s candidates for xmin; i is a candidate's index in x, k = n - i the number
of values in its tail, a = alpha - 1.
"""

from typing import NamedTuple

import numpy as np

# Ranks at which the pruned scan first looks at every candidate's tail. 8 to 24 took the same time.
NUM_PROBES = 12


# Logarithm of the largest float64.
LOG_LARGEST = float(np.log(np.finfo(np.float64).max))


class KS(NamedTuple):
    """Which Kolmogorov-Smirnov distance between tail and fit.

    Attributes:
        two_sided: Look at both sides of each step of the empirical distribution. Clauset's reference code, powerlaw and
            WeightWatcher look at the lower side only, ``(0, ..., k-1)/k``; the textbook distance can be larger by up to
            1/k.
        truncated: Renormalise the fitted distribution to end at the largest value, as powerlaw 1.5 does when it is given
            an xmax (its likelihood, and so alpha, ignores xmax).
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
        xmin: Where it starts; its first value, unless xmin was given or is a threshold below.
    """

    start: int
    alpha: float
    D: float
    xmin: float


def candidates(x: np.ndarray) -> np.ndarray:
    """Where in ``x`` a tail may start.

    Args:
        x: Positive values, ascending, shape ``(n,)``.

    Returns:
        Indices of the first occurrence of each distinct value but the largest. The tail of a candidate is every value
        from there on, so a later copy of the same value would not start a tail of its own. Values whose logarithms are
        equal in float64 count as copies.
    """
    log_x = np.log(x)
    first = np.concatenate([[True], log_x[1:] > log_x[:-1]])
    return np.flatnonzero(first & (log_x < log_x[-1]))


def fit_exponent(log_tail: np.ndarray, log_xmin: float) -> float:
    """Maximum-likelihood exponent of a tail (Clauset et al. 2009, eq. 3.1).

    Args:
        log_tail: Natural logarithms of the values >= xmin, ascending.
        log_xmin: Natural logarithm of xmin.

    Returns:
        alpha; infinite where the values differ by less than the sum's rounding.
    """
    k = float(len(log_tail))
    spread = np.sum(log_tail) - k * log_xmin
    return float(1 + k / spread) if spread > 0 else float("inf")


def deviations(tail: np.ndarray, alpha: float, xmin: float, ks: KS = ONE_SIDED) -> np.ndarray:
    """Fitted distribution function minus the share of the tail strictly below, at each value (eq. 3.9 before the maximum).

    Args:
        tail: The values >= xmin, ascending, shape ``(k,)``.
        alpha: The exponent.
        xmin: Where the tail starts.
        ks: Which distance they are for.

    Returns:
        The differences, shape ``(k,)``.
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
    """The KS distance of a tail from its deviations.

    Args:
        deviation: What ``deviations`` returns.
        ks: Which distance.

    Returns:
        D.
    """
    D = np.max(np.abs(deviation))
    if ks.two_sided:
        D = max(D, np.max(np.abs(deviation - 1 / len(deviation))))
    return float(D)


def scan_all(
    x: np.ndarray, starts: np.ndarray | None = None, ks: KS = ONE_SIDED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plain scan: fit a power law from every candidate for xmin to the top. O(n^2).

    Args:
        x: Positive values, ascending, float64, shape ``(n,)``.
        starts: Candidates; all by default.
        ks: Which distance.

    Returns:
        Three rows of the same length: the candidates' indices in ``x``, the alpha and the D of each.

    Notes:
        The arithmetic, to the order of summation, is that of WeightWatcher's ``WWFit`` and powerlaw 1.5, so that the
        numbers agree to the last bit.
    """
    starts = candidates(x) if starts is None else starts
    log_x = np.log(x)
    alphas, distances = np.empty(len(starts)), np.empty(len(starts))
    for row, i in enumerate(starts):
        alphas[row] = fit_exponent(log_x[i:], log_x[i])
        distances[row] = distance(deviations(x[i:], alphas[row], x[i], ks), ks)
    return starts, alphas, distances


def scan_best(x: np.ndarray, starts: np.ndarray | None = None, ks: KS = ONE_SIDED) -> Tail | None:
    """The candidate with the smallest D (the first on ties), to the bit what ``scan_all`` finds, without fitting them all.

    Args:
        x: Positive values, ascending, float64, shape ``(n,)``.
        starts: Candidates, ascending; all by default.
        ks: Which distance.

    Returns:
        The best tail; None without candidates.

    Notes:
        A cutting-plane search. The exponents of all candidates follow from one cumulative sum. D is a maximum over the
        tail, so its value at any one rank bounds it from below: first at a few ranks, for all candidates at once. Then
        the candidate with the lowest bound is fitted in full by the plain expressions, and the two ranks at which *its*
        maximum lies are tried on all others; neighbours deviate most at nearly the same values, so bounds become tight
        at once, and nearly all candidates drop out above the best D. Two to six full fits suffice on Pareto, lognormal,
        exponential, uniform and Marchenko-Pastur samples of 100 to 16384 values.

        ``slack`` bounds what rounding can do to the bound and to the plain expression together, so that no candidate
        is dropped that the plain scan would prefer.
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
    """Lower bounds on D of the candidates that are still in the race; all rows have the same length."""

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
        return int(np.argmin(self.low))

    def raise_at_ranks(self, ranks: np.ndarray) -> None:
        """Look at some ranks of each tail, shape ``(s, probes)``."""
        rows = slice(None), None
        log_ratio = self.log_x[self.starts[rows] + ranks] - self.log_start[rows]
        low = self._distance_at(log_ratio, ranks, self.a[rows], self.k[rows], self.log_start[rows]).max(axis=1)
        self.low = np.maximum(self.low, low - self.slack)

    def raise_at_index(self, index: int) -> None:
        """Look at one value of ``x``, for the candidates whose tail has it: a leading part, as starts ascend."""
        part = slice(0, int(np.searchsorted(self.starts, index, side="right")))
        log_ratio = self.log_x[index] - self.log_start[part]
        low = self._distance_at(log_ratio, index - self.starts[part], self.a[part], self.k[part], self.log_start[part])
        np.maximum(self.low[part], low - self.slack[part], out=self.low[part])

    def keep_up_to(self, D: float) -> None:
        self._take(self.low <= D)

    def drop(self, row: int) -> None:
        keep = np.ones(len(self), dtype=bool)
        keep[row] = False
        self._take(keep)

    def _take(self, keep: np.ndarray) -> None:
        self.starts, self.k, self.log_start = self.starts[keep], self.k[keep], self.log_start[keep]
        self.a, self.slack, self.low = self.a[keep], self.slack[keep], self.low[keep]

    def _distance_at(
        self, log_ratio: np.ndarray, rank: np.ndarray, a: np.ndarray, k: np.ndarray, log_start: np.ndarray
    ) -> np.ndarray:
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
    """How far rounding can carry a bound and the plain D apart.

    ``np.sum`` over k terms errs by at most about log2(k) eps times the sum of their sizes, so the plain a has a relative
    error of that over ``spread``, and F = 1 - exp(-a t) moves by less than it (t exp(-t) < 1). The plain power works on
    rounded ratios and this one on rounded logarithms: a |log x| eps each. The factors leave room.

    Args:
        log_x: Logarithms of all values.
        starts: Candidates.
        k: Sizes of their tails.
        a: Their alpha - 1.
        spread: Their sums of log x_j - log x_i.
        ks: Which distance.

    Returns:
        One bound a candidate.
    """
    eps = np.finfo(np.float64).eps
    sizes = np.cumsum(np.abs(log_x)[::-1])[::-1][starts] + k * np.abs(log_x[starts])
    largest = np.abs(log_x[[0, -1]]).max()
    slack = eps * (16 + 4 * a * (1 + largest) + 4 * (1 + np.log2(k)) * sizes / spread + 4 * len(log_x))
    if ks.truncated:
        slack = slack * 4 / -np.expm1(-a * (log_x[-1] - log_x[starts]))
    return slack
