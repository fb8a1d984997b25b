"""Fit the Marchenko-Pastur law to the noise bulk of a spectrum; eigenvalues above the bulk do not disturb the fit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from htsr.bulk.bbp import spike_strength
from htsr.bulk.marchenko_pastur import cdf, edges, lower_mean
from htsr.bulk.tracy_widom import tracy_widom_edge
from htsr.errors import InputError

# A spectrum with fewer eigenvalues says too little about its bulk.
MIN_BULK_EIGENVALUES = 8
# Two estimates of the variance: the mean of the lower half of the bulk, which finds the spikes, and the mean of its lower nine
# tenths, for use once the spikes are set aside. Their relative standard errors times sqrt(N M), measured on Gaussian matrices
# with sides from 64 to 1000, are 2.0 to 2.9 and 1.4 to 1.6. (The mean of all eigenvalues has 1.4, but one spike spoils it.)
ROBUST_SHARE, ROBUST_ERROR = 0.5, 2.5
EFFICIENT_SHARE, EFFICIENT_ERROR = 0.9, 1.5
# Use the efficient estimate if it lies within this many standard errors of the robust one.
MAX_DISAGREEMENT = 3.0
# Entries beyond this kurtosis are heavy-tailed themselves, and the first-order correction for it is no longer small.
MAX_KURTOSIS = 6.0
# Negative eigenvalues up to this share of the largest are rounding.
MAX_NEGATIVE = 1e-9
# At a larger KS distance there is no bulk: nearly all eigenvalues lie on one side of where the law puts them.
MAX_DISTANCE = 0.6


@dataclass(frozen=True)
class MarchenkoPasturFit:
    """The noise bulk of a spectrum, in the units of its eigenvalues.

    Attributes:
        sigma: Standard deviation of independent entries of W that would make this bulk.
        sigma_error: Standard error of sigma if the bulk is noise.
        edge_low: Lower edge of the bulk.
        edge_high: Upper edge of the bulk.
        spike_threshold: Tracy-Widom quantile of the largest eigenvalue of such a bulk; it allows for the error of sigma.
        num_spikes: Number of eigenvalues above that threshold.
        softrank: ``edge_high / lambda_max``: about 1 for noise; it approaches 0 as spikes or a heavy tail grow.
        spike_strengths: Singular value of the signal behind each spike (BBP), strongest first.
        D: KS distance between the law and the bulk without its spikes. ``NoiseNull.bulk_p_value`` turns it into a p-value.
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

    def _repr_html_(self) -> str:
        from htsr.report.notebook import bulk_html

        return bulk_html(self)

    def density(self, x: np.ndarray) -> np.ndarray:
        """Evaluate the density of the fitted law, which has no spikes.

        Args:
            x: Where to evaluate it, in the units of the eigenvalues.

        Returns:
            The density, 0 outside the edges.
        """
        M = ((np.sqrt(self.edge_high) - np.sqrt(self.edge_low)) / (2 * self.sigma)) ** 2
        inside = np.clip((self.edge_high - x) * (x - self.edge_low), 0, None)
        return np.sqrt(inside) / (2 * np.pi * M * self.sigma**2 * x)


def fit_marchenko_pastur(
    eigenvalues: ArrayLike, N: int, M: int, *, level: float = 0.99, kurtosis: float = 0.0
) -> MarchenkoPasturFit | None:
    """Fit sigma of the Marchenko-Pastur law to the bulk of a spectrum, undisturbed by eigenvalues above the bulk.

    Args:
        eigenvalues: Eigenvalues of W^T W, zeros included; ``k * M`` of them for k pooled slices.
        N: The larger side of W.
        M: The smaller side of W.
        level: Tracy-Widom quantile above which an eigenvalue is a spike: noise shows one in a share ``1 - level`` of draws.
        kurtosis: Excess kurtosis of the entries of W, if known: 0 for normal ones, 3 for Laplace. It moves the edge of a small
            matrix as far as chance does. Values above 6 count as 6.

    Returns:
        The fit, or None if there is no bulk to fit: fewer than 8 eigenvalues; sides below 2; at least half of the eigenvalues
        zero; at least half of them above the edge of the bulk that the rest would make; or nearly all of them on one side of
        it, as for an orthogonal matrix.

    Raises:
        ValueError: If N is below M or M below 1, ``level`` is not in (0, 1), or ``kurtosis`` is below -2 or not finite.
        InputError: If a value is negative or not finite, or the number of values is not a multiple of M.

    Notes:
        The lower eigenvalues set sigma, not lambda_max (WeightWatcher's bulk follows the largest spike). The fit matches the
        mean of the lower half of the bulk to the law's, which spikes cannot shift as long as they are fewer than half; sets
        aside what lies above the Tracy-Widom threshold; and repeats this until nothing changes. Then the mean of the lower nine
        tenths, nearly as sharp as the maximum likelihood of pure noise, replaces the first estimate, unless the two disagree
        by more than chance. If they do, the rest is not a Marchenko-Pastur bulk, and the robust estimate stays.

        k signals use up k dimensions on either side, so the rest is the bulk of an (N - k) x (M - k) matrix. The fit is
        continuous at N = M.

    Example:
        >>> W = np.random.default_rng(0).normal(size=(400, 200))
        >>> fit = fit_marchenko_pastur(np.linalg.eigvalsh(W.T @ W), 400, 200)
        >>> round(fit.sigma, 2), fit.num_spikes
        (1.0, 0)
    """
    given = np.asarray(eigenvalues)
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        raise InputError(f"expected a row of real eigenvalues, got shape {given.shape} of {given.dtype}")
    evals = np.sort(given.astype(np.float64))
    if not np.isfinite(evals).all():
        raise InputError(f"expected finite eigenvalues, {int((~np.isfinite(evals)).sum())} of {len(evals)} are not")
    if len(evals) and evals[0] < -MAX_NEGATIVE * evals[-1]:
        raise InputError(f"expected eigenvalues >= 0, the smallest is {evals[0]:g} and the largest {evals[-1]:g}")
    evals = evals.clip(0)
    if not -2 <= kurtosis < np.inf:
        raise ValueError(f"expected a finite kurtosis >= -2, got {kurtosis}")
    if N < M or M < 1:
        raise ValueError(f"expected the larger side first, N >= M >= 1, got N={N}, M={M}")
    if len(evals) % M:
        raise InputError(f"expected k M eigenvalues for k pooled slices, got {len(evals)} values for M={M}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level!r}")
    if len(evals) < MIN_BULK_EIGENVALUES or M < 2 or np.median(evals) <= 0:
        return None
    bulk = _Bulk(evals, N, M, level, min(kurtosis, MAX_KURTOSIS))
    robust = bulk.settle(ROBUST_SHARE, ROBUST_ERROR)
    if robust is None:
        return None
    variance, num_spikes, error = robust
    efficient = bulk.settle(EFFICIENT_SHARE, EFFICIENT_ERROR, num_spikes)
    if efficient is not None and abs(efficient[0] / variance - 1) < MAX_DISAGREEMENT * error:
        variance, num_spikes, error = efficient
    n, m = bulk.sides(num_spikes)
    low, high = edges(n, m)
    rest = evals[: len(evals) - num_spikes]
    D = _ks_distance(cdf(rest / variance, n, m, bulk.kurtosis))
    if D > MAX_DISTANCE:
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
    """A spectrum whose noise bulk is to be found."""

    evals: np.ndarray
    N: int
    M: int
    level: float
    kurtosis: float

    @property
    def matrices(self) -> int:
        """The number of pooled slices."""
        return max(1, len(self.evals) // self.M)

    def sides(self, num_spikes: int) -> tuple[float, float]:
        """Return the sides of the noise in each slice, of which the spikes have used up their dimensions."""
        return self.N - num_spikes / self.matrices, self.M - num_spikes / self.matrices

    def threshold(self, num_spikes: int, variance_error: float) -> float:
        """Return the eigenvalue above which a spike begins, in units of the variance."""
        N, M = self.sides(num_spikes)
        edge = tracy_widom_edge(N, M, level=self.level, matrices=self.matrices, variance_error=variance_error)
        return edge * (1 + self.kurtosis / np.sqrt(N * M))

    def settle(self, share: float, relative_error: float, num_spikes: int = 0) -> tuple[float, int, float] | None:
        """Return a variance, a number of spikes and a relative error that are consistent, or None if half are spikes."""
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
    """Return the two-sided KS distance between the law and values whose ascending levels under the law are given."""
    steps = np.arange(len(levels) + 1) / len(levels)
    return float(max((steps[1:] - levels).max(), (levels - steps[:-1]).max()))
