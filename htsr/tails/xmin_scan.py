"""The scan for xmin of Clauset, Shalizi and Newman (2009), section 3.3, over every candidate."""

import numpy as np


def candidates(x: np.ndarray) -> np.ndarray:
    """Where in ``x`` a tail may start.

    Args:
        x: Positive values, ascending, shape ``(n,)``.

    Returns:
        Indices of the first occurrence of each distinct value but the largest. The tail of a candidate is every value
        from there on, so a later copy of the same value would not start a tail of its own.
    """
    first = np.concatenate([[True], np.diff(x) > 0])
    return np.flatnonzero(first & (x < x[-1]))


def scan_xmin(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a power law from every candidate for xmin to the top.

    Args:
        x: Positive values, ascending, float64, shape ``(n,)``.

    Returns:
        Three rows of the same length: the candidates' indices in ``x``, the exponent alpha of each, and its
        Kolmogorov-Smirnov distance D.

    Notes:
        The arithmetic, to the order of summation, is that of WeightWatcher's ``WWFit`` and powerlaw 1.5, so that the
        numbers agree to the last bit. D is one-sided, as in Clauset's reference code: the empirical distribution
        counts the values strictly below each point, ``(0, ..., n-1)/n``; the textbook statistic looks at both sides of
        each step and can be larger by up to 1/n.
    """
    log_x = np.log(x)
    starts = candidates(x)
    alphas, distances = np.empty(len(starts)), np.empty(len(starts))
    for row, i in enumerate(starts):
        alphas[row], distances[row] = fit_tail(x[i:], log_x[i:], x[i], log_x[i])
    return starts, alphas, distances


def fit_tail(tail: np.ndarray, log_tail: np.ndarray, xmin: float, log_xmin: float) -> tuple[float, float]:
    """Maximum-likelihood exponent of a tail, and its one-sided KS distance.

    Args:
        tail: The values >= xmin, ascending, shape ``(n,)``.
        log_tail: Their natural logarithms.
        xmin: Where the tail starts.
        log_xmin: Its natural logarithm.

    Returns:
        alpha (Clauset et al. 2009, eq. 3.1) and D (eq. 3.9).
    """
    n = float(len(tail))
    alpha = 1 + n / (np.sum(log_tail) - n * log_xmin)
    D = np.max(np.abs(1 - (tail / xmin) ** (-alpha + 1) - np.arange(n) / n))
    return float(alpha), float(D)
