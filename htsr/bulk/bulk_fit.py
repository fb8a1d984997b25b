"""The noise bulk of a spectrum, whatever stands above it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from htsr.bulk.bbp import spike_strength
from htsr.bulk.marchenko_pastur import cdf, edges, lower_mean
from htsr.bulk.tracy_widom import tracy_widom_edge

# Below this many eigenvalues a bulk says little.
MIN_EIGENVALUES = 8
# Share of the bulk's eigenvalues whose mean gives the variance, and the relative standard error of that variance, times
# sqrt(N M): measured 2.0 to 2.9 and 1.4 to 1.6 for Gaussian matrices with sides from 64 to 1000 (the mean of all, which a
# single spike spoils, has 1.4). The lower half is what finds the spikes; nine tenths are used once they are set aside.
ROBUST, ROBUST_ERROR = 0.5, 2.5
EFFICIENT, EFFICIENT_ERROR = 0.9, 1.5
# Beyond this the entries are themselves heavy-tailed, and the first-order correction for it is no longer small.
MAX_KURTOSIS = 6.0
# Negative eigenvalues up to this share of the largest are rounding.
ROUNDING = 1e-9
# A KS distance this large is no bulk: nearly all eigenvalues lie on one side of where the law has them.
NO_BULK = 0.6
# The two may differ by chance up to this many of the first one's standard errors.
AGREE = 3.0


@dataclass(frozen=True)
class MarchenkoPasturFit:
    """The noise bulk of a spectrum, in the units of its eigenvalues.

    Attributes:
        sigma: Standard deviation of the entries of W that would make this bulk.
        sigma_error: Standard error of sigma, were the bulk the noise it is taken for.
        edge_low: Lower edge of the bulk.
        edge_high: Upper edge of the bulk.
        spike_threshold: Tracy-Widom quantile of the largest eigenvalue of such a bulk, the error of sigma counted.
        num_spikes: Number of eigenvalues above that threshold.
        softrank: ``edge_high / lambda_max``: about 1 for noise, towards 0 as spikes or a heavy tail grow.
        spike_strengths: Singular value of the planted signal behind each spike (BBP), strongest first.
        D: KS distance between the bulk, spikes set aside, and the law. Its p-value comes from ``NoiseNull.bulk_p_value``.
    """

    sigma: float
    sigma_error: float
    edge_low: float
    edge_high: float
    spike_threshold: float
    num_spikes: int
    softrank: float
    spike_strengths: np.ndarray
    D: float

    def density(self, x: np.ndarray) -> np.ndarray:
        """The law's density, of the bulk alone.

        Args:
            x: Where, in the units of the eigenvalues.

        Returns:
            The density, 0 outside of the edges.
        """
        M = ((np.sqrt(self.edge_high) - np.sqrt(self.edge_low)) / (2 * self.sigma)) ** 2
        inside = np.clip((self.edge_high - x) * (x - self.edge_low), 0, None)
        return np.sqrt(inside) / (2 * np.pi * M * self.sigma**2 * x)


def fit_marchenko_pastur(
    eigenvalues: ArrayLike, N: int, M: int, *, level: float = 0.99, kurtosis: float = 0.0
) -> MarchenkoPasturFit | None:
    """Fit sigma of the Marchenko-Pastur law to the bulk of a spectrum, whatever stands above the bulk.

    Args:
        eigenvalues: Eigenvalues of W^T W, zeros included; ``k * M`` of them for k pooled slices.
        N: The larger side of W.
        M: The smaller side of W.
        kurtosis: Excess kurtosis of the entries of W, where they are known: 0 for normal ones, 3 for Laplace. It moves the
            edge of a small matrix as far as chance does. Capped at 6.
        level: Tracy-Widom quantile above which an eigenvalue is a spike: noise shows one in a share ``1 - level`` of draws.

    Returns:
        The fit; None where there is no bulk to fit: fewer than 8 eigenvalues, sides below 2, at least half of the
        eigenvalues zero, at least half of them above the edge of whatever bulk the rest would make, or nearly all on
        one side of it, as for an orthogonal matrix.

    Raises:
        ValueError: If a value is negative or not finite, N is below M, the values are not k M, ``level`` is not in (0, 1),
            or ``kurtosis`` is below -2 or not finite.

    Notes:
        sigma is set by the lower eigenvalues and not by lambda_max (WeightWatcher, whose bulk follows the largest spike).
        The mean of the lower half of the bulk is matched to the law's, which no number of spikes below one half can carry
        off; what lies above the Tracy-Widom threshold is set aside, and this is repeated until it is steady. Then the mean
        of the lower nine tenths, nearly as sharp as the maximum likelihood of pure noise, takes over, unless it disagrees
        by more than chance: then what is left is no Marchenko-Pastur bulk, and the robust one stays.

        k signals use up k dimensions on either side: the rest is the bulk of an (N - k) x (M - k) matrix. Nothing depends
        on whether N equals M.

    Example:
        >>> W = np.random.default_rng(0).normal(size=(400, 200))
        >>> fit = fit_marchenko_pastur(np.linalg.eigvalsh(W.T @ W), 400, 200)
        >>> round(fit.sigma, 2), fit.num_spikes
        (1.0, 0)
    """
    given = np.asarray(eigenvalues)
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        raise ValueError(f"expected a row of real eigenvalues, got shape {given.shape} of {given.dtype}")
    evals = np.sort(given.astype(np.float64))
    if not np.isfinite(evals).all():
        raise ValueError(f"expected finite eigenvalues, {int((~np.isfinite(evals)).sum())} of {len(evals)} are not")
    if len(evals) and evals[0] < -ROUNDING * evals[-1]:
        raise ValueError(f"expected eigenvalues >= 0, the smallest is {evals[0]:g} and the largest {evals[-1]:g}")
    evals = evals.clip(0)
    if not -2 <= kurtosis < np.inf:
        raise ValueError(f"expected a finite kurtosis >= -2, the least there is, got {kurtosis}")
    if N < M or M < 1 or len(evals) % M:
        raise ValueError(
            f"expected the larger side first and k M eigenvalues, got N={N}, M={M} and {len(evals)} values"
        )
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level!r}")
    if len(evals) < MIN_EIGENVALUES or M < 2 or np.median(evals) <= 0:
        return None
    bulk = _Bulk(evals, N, M, level, min(kurtosis, MAX_KURTOSIS))
    robust = bulk.settle(ROBUST, ROBUST_ERROR)
    if robust is None:
        return None
    variance, num_spikes, error = robust
    efficient = bulk.settle(EFFICIENT, EFFICIENT_ERROR, num_spikes)
    if efficient is not None and abs(efficient[0] / variance - 1) < AGREE * error:
        variance, num_spikes, error = efficient
    n, m = bulk.sides(num_spikes)
    low, high = edges(n, m)
    rest = evals[: len(evals) - num_spikes]
    D = _ks_distance(cdf(rest / variance, n, m, bulk.kurtosis))
    if D > NO_BULK:
        return None
    return MarchenkoPasturFit(
        sigma=float(np.sqrt(variance)),
        sigma_error=float(np.sqrt(variance) * error / 2),
        edge_low=variance * low,
        edge_high=variance * high,
        spike_threshold=float(variance * bulk.threshold(num_spikes, error)),
        num_spikes=num_spikes,
        softrank=variance * high / float(evals[-1]),
        spike_strengths=np.sqrt(variance) * spike_strength(evals[len(rest) :][::-1] / variance, N, M),
        D=D,
    )


@dataclass(frozen=True)
class _Bulk:
    """A spectrum on its way to a fit."""

    evals: np.ndarray
    N: int
    M: int
    level: float
    kurtosis: float

    @property
    def matrices(self) -> int:
        return max(1, len(self.evals) // self.M)

    def sides(self, num_spikes: int) -> tuple[float, float]:
        """Sides of what is left of each slice when the spikes have used up theirs."""
        return self.N - num_spikes / self.matrices, self.M - num_spikes / self.matrices

    def threshold(self, num_spikes: int, variance_error: float) -> float:
        N, M = self.sides(num_spikes)
        edge = tracy_widom_edge(N, M, level=self.level, matrices=self.matrices, variance_error=variance_error)
        return edge * (1 + self.kurtosis / np.sqrt(N * M))

    def settle(self, share: float, relative_error: float, num_spikes: int = 0) -> tuple[float, int, float] | None:
        """Variance, number of spikes and standard error that agree with each other; None if half are spikes."""
        error = relative_error / np.sqrt(self.N * self.M * self.matrices)
        seen: set[int] = set()
        while num_spikes not in seen:
            seen.add(num_spikes)
            used = max(1, round(share * (len(self.evals) - num_spikes)))
            expected = lower_mean(used / (len(self.evals) - num_spikes), *self.sides(num_spikes), self.kurtosis)
            variance = float(self.evals[:used].mean()) / expected
            num_spikes = int(np.sum(self.evals > variance * self.threshold(num_spikes, error)))
            if 2 * num_spikes >= len(self.evals):
                return None
        return variance, num_spikes, error


def _ks_distance(levels: np.ndarray) -> float:
    """Largest distance, on either side of each step, between the ascending values' own distribution and the law's."""
    steps = np.arange(len(levels) + 1) / len(levels)
    return float(max((steps[1:] - levels).max(), (levels - steps[:-1]).max()))
