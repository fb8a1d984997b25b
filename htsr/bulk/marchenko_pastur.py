"""The Marchenko-Pastur law fitted to the bulk of a spectrum."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from htsr.bulk.tracy_widom import tracy_widom_edge

# Below this many eigenvalues a median says little about the bulk.
MIN_EIGENVALUES = 8
# Relative standard error of the variance that the median gives, times sqrt(N M): measured 2.3 to 2.9 for Gaussian matrices
# with sides from 16 to 1024, 3.5 at 256 x 256.
MEDIAN_ERROR = 2.7


@dataclass(frozen=True)
class MarchenkoPasturFit:
    """The noise bulk of a spectrum, in the units of its eigenvalues.

    Attributes:
        sigma: Standard deviation of the entries of W that would make this bulk.
        edge_low: Lower edge of the bulk, ``sigma^2 (sqrt(N) - sqrt(M))^2``.
        edge_high: Upper edge of the bulk, ``sigma^2 (sqrt(N) + sqrt(M))^2``.
        spike_threshold: 99 % Tracy-Widom quantile of the largest eigenvalue of such a bulk, the error of sigma counted.
        num_spikes: Number of eigenvalues above that threshold.
        softrank: ``edge_high / lambda_max``: about 1 for noise, towards 0 as spikes or a heavy tail grow.
    """

    sigma: float
    edge_low: float
    edge_high: float
    spike_threshold: float
    num_spikes: int
    softrank: float


def fit_marchenko_pastur(eigenvalues: ArrayLike, N: int, M: int) -> MarchenkoPasturFit | None:
    """Fit sigma of the Marchenko-Pastur law to the bulk of a spectrum, whatever stands above the bulk.

    Args:
        eigenvalues: Eigenvalues of W^T W, zeros included; ``k * M`` of them for k pooled slices.
        N: The larger side of W.
        M: The smaller side of W.

    Returns:
        The fit; None where there is no bulk to fit: fewer than 8 eigenvalues, sides below 2, at least half of the
        eigenvalues zero, or at least half of them above the edge of whatever bulk the rest would make.

    Raises:
        ValueError: If a value is negative or not finite.

    Notes:
        sigma is set by the median of the bulk, which no number of spikes below one half can carry off, and not by
        lambda_max (WeightWatcher, whose bulk follows the largest spike). Spikes shift the rank of the median: the k
        eigenvalues above the Tracy-Widom threshold are set aside and the median of the rest is matched, until k is
        steady. Nothing depends on whether N equals M.

    Example:
        >>> W = np.random.default_rng(0).normal(size=(400, 200))
        >>> fit = fit_marchenko_pastur(np.linalg.eigvalsh(W.T @ W), 400, 200)
        >>> round(fit.sigma, 2), fit.num_spikes
        (1.0, 0)
    """
    evals = np.sort(np.asarray(eigenvalues, dtype=np.float64))
    if not np.isfinite(evals).all() or (evals < 0).any():
        raise ValueError("expected finite eigenvalues >= 0")
    if len(evals) < MIN_EIGENVALUES or M < 2 or np.median(evals) <= 0:
        return None
    matrices = max(1, len(evals) // M)
    variance_error = MEDIAN_ERROR / np.sqrt(N * M * matrices)
    threshold = tracy_widom_edge(N, M, matrices=matrices, variance_error=variance_error)
    unit_median = bulk_median(M / N) * N
    num_spikes, seen = 0, set()
    while num_spikes not in seen:
        seen.add(num_spikes)
        variance = float(np.median(evals[: len(evals) - num_spikes])) / unit_median
        num_spikes = int(np.sum(evals > variance * threshold))
        if 2 * num_spikes >= len(evals):
            return None
    root_N, root_M = np.sqrt(N), np.sqrt(M)
    edge_high = float(variance * (root_N + root_M) ** 2)
    return MarchenkoPasturFit(
        sigma=float(np.sqrt(variance)),
        edge_low=float(variance * (root_N - root_M) ** 2),
        edge_high=edge_high,
        spike_threshold=float(variance * threshold),
        num_spikes=num_spikes,
        softrank=edge_high / float(evals[-1]),
    )


@lru_cache(maxsize=4096)
def bulk_median(ratio: float) -> float:
    """Median of the Marchenko-Pastur law of unit variance.

    Args:
        ratio: ``M / N`` in (0, 1].

    Returns:
        The median of the eigenvalues of W^T W / N.

    Notes:
        With ``x = 1 + y + 2 sqrt(y) cos(t)`` the density is smooth in t, so a midpoint rule on a fine grid is accurate to
        1e-7 also at y = 1, where the density itself is infinite at 0.
    """
    steps = 20_000
    t = (np.arange(steps) + 0.5) * np.pi / steps
    x = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(t)
    mass = 2 / np.pi * np.sin(t) ** 2 / x
    upper_mass = np.cumsum(mass) * np.pi / steps
    return float(np.interp(0.5, upper_mass, 1 + ratio + 2 * np.sqrt(ratio) * np.cos(t + np.pi / steps / 2)))
