"""The continuous power law p(x) ~ x^-alpha for x >= xmin, fitted to the tail of a spectrum."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from htsr.tails.xmin_scan import fit_tail, scan_xmin

# A fit needs this many distinct values. WeightWatcher 0.7.7 takes layers from 8 eigenvalues on.
MIN_DISTINCT = 8
# Values closer together than this, relative to the largest, count as equal: an orthogonal matrix stored in float32 has
# eigenvalues 1 +- 1e-7, and a fit to that rounding would answer alpha = 2e7 and call it a success.
MIN_SPREAD = 1e-5


@dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to the tail of a spectrum, or the reason why there is none.

    Attributes:
        alpha: Exponent of the density, ``p(x) ~ x^-alpha``. NaN if the fit failed.
        xmin: Where the tail starts.
        xmax: The largest value. The fitted density is not cut off there.
        D: Kolmogorov-Smirnov distance between tail and fit, one-sided; see ``htsr.tails.xmin_scan``.
        sigma: ``(alpha - 1) / sqrt(n_tail)``, the standard error of alpha for a given xmin. It does not count the
            choice of xmin, so intervals made from it are too narrow.
        n_tail: Number of values >= xmin.
        n: Number of positive values the fit chose from.
        log_likelihood: Natural log-likelihood of the tail.
        status: ``success`` or ``failed``.
        reason: Why it failed, with the numbers; empty on success.
    """

    alpha: float
    xmin: float
    xmax: float
    D: float
    sigma: float
    n_tail: int
    n: int
    log_likelihood: float
    status: Literal["success", "failed"] = "success"
    reason: str = ""

    @classmethod
    def failed(cls, reason: str, n: int = 0) -> "PowerLawFit":
        """A refused fit: every number NaN, and the reason."""
        nan = float("nan")
        return cls(nan, nan, nan, nan, nan, 0, n, nan, "failed", reason)

    def __repr__(self) -> str:
        if self.status == "failed":
            return f"PowerLawFit(failed: {self.reason})"
        return (
            f"PowerLawFit(alpha={self.alpha:.3f}, sigma={self.sigma:.3f}, xmin={self.xmin:.4g}, D={self.D:.4f}, "
            f"{self.n_tail} of {self.n} values in the tail)"
        )


def fit_power_law(eigenvalues: ArrayLike, *, xmin: float | Literal["ks"] = "ks") -> PowerLawFit:
    """Fit a power law to the tail of a spectrum.

    Args:
        eigenvalues: A ``Spectrum``, or values >= 0 in any order. Zeros are left out: no power law reaches them.
        xmin: ``"ks"`` tries every value as the start of the tail and keeps the one with the smallest KS distance
            (Clauset, Shalizi and Newman 2009, section 3.3; the first on ties). A number is taken as given.

    Returns:
        The fit. It is refused, with ``status="failed"`` and a reason, where the values do not carry one: fewer than 8
        distinct, all equal, or fewer than 2 distinct at or above a given xmin.

    Raises:
        ValueError: If a value is negative or not finite, or ``xmin`` is neither ``"ks"`` nor a positive number.

    Example:
        >>> x = np.random.default_rng(0).pareto(1.5, size=2000) + 1   # alpha = 2.5
        >>> fit_power_law(x)
        PowerLawFit(alpha=2.484, sigma=0.033, xmin=1.004, D=0.0128, 1992 of 2000 values in the tail)
    """
    x = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError(
            f"expected finite values >= 0, got {int((~np.isfinite(x)).sum())} non-finite and "
            f"{int((x < 0).sum())} negative among {len(x)}"
        )
    if xmin != "ks" and not (isinstance(xmin, int | float | np.number) and 0 < xmin < np.inf):
        raise ValueError(f"expected xmin='ks' or a positive number, got {xmin!r}")

    x = x[x > 0]
    distinct = len(np.unique(x))
    if distinct < MIN_DISTINCT:
        return PowerLawFit.failed(f"{distinct} distinct positive values, a fit needs {MIN_DISTINCT}", len(x))
    if x[-1] - x[0] < MIN_SPREAD * x[-1]:
        return PowerLawFit.failed(
            f"all {len(x)} values are equal to 1 part in {1 / MIN_SPREAD:.0e} ({x[0]:.6g} to {x[-1]:.6g})", len(x)
        )

    if xmin == "ks":
        starts, alphas, distances = scan_xmin(x)
        best = int(np.argmin(distances))
        start, alpha, D = starts[best], float(alphas[best]), float(distances[best])
        tail, xmin = x[start:], float(x[start])
    else:
        tail, xmin = x[x >= xmin], float(xmin)
        if len(np.unique(tail)) < 2:
            return PowerLawFit.failed(f"{len(tail)} of {len(x)} values at or above the given xmin={xmin:g}", len(x))
        alpha, D = fit_tail(tail, np.log(tail), xmin, np.log(xmin))

    n_tail = len(tail)
    log_likelihood = n_tail * np.log((alpha - 1) / xmin) - alpha * float(np.sum(np.log(tail / xmin)))
    sigma = (alpha - 1) / np.sqrt(n_tail)
    return PowerLawFit(alpha, xmin, float(x[-1]), D, float(sigma), n_tail, len(x), float(log_likelihood))
