"""The densities that a picture of a spectrum shows: histogram, fitted tail and noise bulk, on one of three scales."""

from typing import Literal, get_args

import numpy as np

from htsr.bulk import MarchenkoPasturFit
from htsr.tails import PowerLawFit

# The two axes: eigenvalue and density. "log-lin" shows the density per decade, so that equal areas hold equally many eigenvalues.
Scale = Literal["log-log", "lin", "log-lin"]
# A linear axis ends at this many times the noise edge, or at this many medians if there is no edge, and shows at least this
# share of the eigenvalues. It reaches to the start of the tail where that makes it at most so many times as long.
BULKS_SHOWN, MEDIANS_SHOWN, LEAST_SHOWN, STRETCH = 2.0, 12.0, 0.9, 1.6


def check_scale(scale: str) -> None:
    """Raise a ``ValueError`` for an unknown scale."""
    if scale not in get_args(Scale):
        raise ValueError(f"expected scale to be one of {', '.join(get_args(Scale))}, got {scale!r}")


def histogram(
    evals: np.ndarray, scale: Scale = "log-log", edge: float | None = None, xmin: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a histogram of positive eigenvalues and the density in each bin, NaN where a log axis has no zero.

    A linear axis ends where the largest eigenvalues lie alone, beyond the noise edge and, if it is near, xmin.
    """
    if scale != "lin":
        edges, density = log_histogram(evals)
        return edges, density if scale == "log-log" else np.nan_to_num(density) * _per_decade(edges)
    bulk = BULKS_SHOWN * edge if edge is not None else MEDIANS_SHOWN * float(np.median(evals))
    right = max(bulk, float(np.quantile(evals, LEAST_SHOWN)))
    if xmin is not None and xmin < STRETCH * right:
        right = max(right, 1.1 * xmin)
    right = min(evals[-1], right)
    edges = np.linspace(0, 1.02 * right, int(np.clip(2 * np.sqrt(len(evals)), 10, 80)) + 1)
    counts, _ = np.histogram(evals, bins=edges)
    return edges, counts / np.diff(edges) / len(evals)


def log_histogram(evals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of about 1.5 sqrt(n) bins, equally wide in the logarithm, and the density in each, NaN where empty."""
    # The axis begins above the lowest twentieth, which counts in the density: the smallest eigenvalues of a square matrix
    # reach so far down that they would squeeze everything else into a corner.
    low, high = np.log10(np.quantile(evals, 0.05, method="lower")), np.log10(evals[-1])
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    edges = np.logspace(low, high, int(np.clip(1.5 * np.sqrt(len(evals)), 8, 100)) + 1)
    edges[-1] = max(edges[-1], evals[-1])
    counts, _ = np.histogram(evals, bins=edges)
    density = counts / np.diff(edges) / len(evals)
    return edges, np.where(counts > 0, density, np.nan)


def tail_density(fit: PowerLawFit, n: int, scale: Scale = "log-log") -> tuple[np.ndarray, np.ndarray]:
    """Return where the fitted tail lies among n eigenvalues, and its density."""
    x = np.geomspace(fit.xmin, fit.xmax, 100)
    density = fit.n_tail / n * (fit.alpha - 1) / fit.xmin * (x / fit.xmin) ** -fit.alpha
    return x, density if scale != "log-lin" else density * x * np.log(10)


def bulk_density(bulk: MarchenkoPasturFit, n: int, scale: Scale = "log-log") -> tuple[np.ndarray, np.ndarray]:
    """Return where the fitted noise bulk lies among n eigenvalues, and its density."""
    # evenly in the angle, since the law rises and falls steeply at its edges
    middle, reach = (bulk.edge_low + bulk.edge_high) / 2, (bulk.edge_high - bulk.edge_low) / 2
    x = middle - reach * np.cos(np.linspace(0, np.pi, 400)[1:-1])
    density = (1 - bulk.num_spikes / n) * bulk.density(x)
    return x, density if scale != "log-lin" else density * x * np.log(10)


def _per_decade(edges: np.ndarray) -> np.ndarray:
    """Return what turns the density of each bin into its density per decade."""
    return np.diff(edges) / np.diff(np.log10(edges))
