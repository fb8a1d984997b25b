"""Hill's estimate of alpha for every number of values in the tail."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from htsr.bulk.marchenko_pastur import cdf, edges
from htsr.plots.style import BLUE, GREY, VERMILION, ManyAxes, axes_for, label_axes, put_legend, put_title
from htsr.plots.ticks import log_axis
from htsr.spectra.spectrum import Spectrum
from htsr.tails import PowerLawFit

# The estimate from fewer values jumps so far that the axis does not follow it.
FEWEST = 5


def hill_curve(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Compute Hill's estimate for every number of values above the threshold.

    Args:
        values: A spectrum, or values >= 0 in any order; zeros are left out.

    Returns:
        k from 1 to n - 1, and ``htsr.tails.hill(values, k)`` for each; NaN where the k + 1 largest values are equal.
    """
    x = np.sort(np.asarray(values, dtype=np.float64).ravel())
    logs = np.log(x[x > 0])[::-1]
    k = np.arange(1, len(logs))
    spread = np.cumsum(logs[:-1]) - k * logs[1:]
    with np.errstate(divide="ignore"):
        alpha = 1 + k / spread
    return k, np.where(logs[:-1].max(initial=-np.inf) > logs[1:], alpha, np.nan)


def noise_values(N: int, M: int, count: int) -> np.ndarray:
    """Return the quantiles of the Marchenko-Pastur law of an N x M matrix, in the middle of equal shares."""
    low, high = edges(N, M)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, 4001))
    return np.interp((np.arange(count) + 0.5) / count, np.clip(cdf(x, N, M), 0, 1), x)


def plot_hill(
    spectrum: Spectrum | ArrayLike, fit: PowerLawFit | None = None, *, title: str = "", ax: ManyAxes | None = None
) -> Axes:
    """Draw Hill's alpha against the number k of values in the tail, beside that of noise of the same shape.

    A plateau is what a power law gives. The estimate for noise has none, and rises and falls through the same values.

    Args:
        spectrum: The eigenvalues; the curve of noise needs the shape of a ``Spectrum``.
        fit: A fit whose alpha and number of values are marked.
        title: The layer's name.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If fewer than three eigenvalues are positive.
    """
    k, alpha = hill_curve(spectrum)
    if len(k) < 2 or not np.isfinite(alpha).any():
        raise ValueError(f"a Hill plot needs three different positive values, got {len(k) + 1} positive ones")
    axes: Axes = axes_for(ax, width=6, height=3.6)[0, 0]
    error = 1.96 * (alpha - 1) / np.sqrt(k)
    axes.fill_between(
        k, alpha - error, alpha + error, color=BLUE, alpha=0.3, linewidth=0, label="$\\pm$ 1.96 standard errors"
    )
    axes.plot(k, alpha, color=BLUE, linewidth=1.4, label="Hill")
    if isinstance(spectrum, Spectrum):
        noise = hill_curve(noise_values(spectrum.N, spectrum.M, len(spectrum)))
        axes.plot(*noise, color=GREY, linewidth=1.2, linestyle="--", label="noise (Marchenko-Pastur)")
    if fit is not None and fit.status == "success":
        axes.plot([fit.n_tail], [fit.alpha], "o", color=VERMILION, markersize=5, label=f"fit, alpha {fit.alpha:.2f}")
    shown = alpha[FEWEST - 1 :] if len(alpha) > FEWEST else alpha
    top = np.nanmax(
        np.append(shown[np.isfinite(shown)], fit.alpha if fit is not None and fit.status == "success" else 1)
    )
    axes.set_ylim(1, 1 + 1.25 * (top - 1))
    log_axis(axes, "x")
    label_axes(axes, "k, number of values in the tail", "alpha")
    put_title(axes, title)
    put_legend(axes, own=ax is None)
    return axes
