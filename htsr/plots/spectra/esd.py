"""The empirical spectral density (ESD) of one weight, with what was fitted to it."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from htsr.bulk import MarchenkoPasturFit
from htsr.plots.spectra.density import Scale, bulk_density, check_scale, histogram, tail_density
from htsr.plots.style import (
    GREEN,
    GREY,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    ManyAxes,
    axes_for,
    label_axes,
    put_legend,
    put_title,
)
from htsr.plots.ticks import log_axis
from htsr.spectra.spectrum import Spectrum
from htsr.tails import PowerLawFit
from htsr.text import plotted

# Below this share of the lowest bin that holds an eigenvalue, the law of the bulk is not drawn on a logarithmic axis.
LOWEST_SHOWN = 0.5
# A linear density axis ends at this many times the highest bin, or lower where the lowest bin is more than so many times as
# high as all others.
HEADROOM, LOWEST_BIN = 1.15, 1.5


def plot_esd(
    spectrum: Spectrum | ArrayLike,
    fit: PowerLawFit | None = None,
    *,
    title: str = "",
    bulk_max: float | None = None,
    bulk: MarchenkoPasturFit | None = None,
    shuffled: Spectrum | ArrayLike | None = None,
    scale: Scale = "log-log",
    ax: ManyAxes | None = None,
) -> Axes:
    """Draw an ESD with its fitted tail, its noise bulk and the ESD of the shuffled weight.

    Args:
        spectrum: The eigenvalues.
        fit: The power law; the title has its alpha with the standard error. A failed fit is not drawn, and the title says so.
        title: The layer's name.
        bulk_max: Upper edge of the noise bulk, drawn where given; ``bulk`` has one, too.
        bulk: The Marchenko-Pastur law fitted to the bulk; eigenvalues above its threshold are marked as spikes.
        shuffled: The eigenvalues of the shuffled weight.
        scale: ``"log-log"``; ``"lin"``, two linear axes that end where the largest eigenvalues lie alone; or ``"log-lin"``,
            the density per decade against the logarithm.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If ``scale`` is unknown.
    """
    check_scale(scale)
    axes = axes_for(ax, width=6, height=4)[0, 0]
    draw_esd(axes, spectrum, fit, bulk_max, bulk, shuffled, scale)
    put_title(axes, title, fit_note(fit))
    label_axes(axes, "eigenvalue $\\lambda$ of $W^T W$", "density per decade" if scale == "log-lin" else "density")
    put_legend(axes, own=ax is None)
    return axes


def draw_esd(
    ax: Axes,
    spectrum: Spectrum | ArrayLike,
    fit: PowerLawFit | None,
    bulk_max: float | None,
    bulk: MarchenkoPasturFit | None = None,
    shuffled: Spectrum | ArrayLike | None = None,
    scale: Scale = "log-log",
) -> None:
    """Draw what ``plot_esd`` shows, without texts around the axes."""
    evals = _positive(spectrum)
    if not len(evals):
        ax.text(0.5, 0.5, "all eigenvalues are zero", transform=ax.transAxes, ha="center", fontsize=SMALL, color=GREY)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    edge = bulk.edge_high if bulk is not None else bulk_max
    fitted = fit is not None and fit.status == "success"
    edges, density = histogram(evals, scale, edge, fit.xmin if fit is not None and fitted else None)
    ax.stairs(density, edges, fill=True, color=SKY, alpha=0.6, linewidth=0, label="ESD")
    if shuffled is not None and len(other := _positive(shuffled)):
        _draw_shuffled(ax, other, edges, scale)
    if bulk is not None:
        x, law = bulk_density(bulk, len(evals), scale)
        if scale != "lin":
            law[x < edges[0]] = np.nan
        if scale == "log-log":
            law[law < LOWEST_SHOWN * np.nanmin(density)] = np.nan
        ax.plot(x, law, color=GREEN, linewidth=1.4, label="noise law")
    if fit is not None and fitted and (scale != "lin" or fit.xmin < edges[-1]):
        ax.plot(*tail_density(fit, len(evals), scale), color=VERMILION, linewidth=1.6, label="power law")
        ax.axvline(fit.xmin, color=VERMILION, linestyle="--", linewidth=0.9, label=f"xmin {fit.xmin:.3g}")
    if edge is not None and (scale != "lin" or edge < edges[-1]):
        ax.axvline(edge, color=GREY, linestyle=":", linewidth=1.2, label=f"noise edge {edge:.3g}")
    if bulk is not None and bulk.num_spikes:
        _mark(ax, evals[evals > bulk.spike_threshold], edges[-1] if scale == "lin" else np.inf)
    _scale_axes(ax, edges, len(evals[evals > edges[-1]]), scale)
    if (
        scale == "lin"
    ):  # the law of a square matrix has no bound at zero, and the lowest bin may stand far above the rest
        ax.set_ylim(0, HEADROOM * min(density.max(), max(LOWEST_BIN * density[1:].max(), 0.5 * density.max())))


def fit_note(fit: PowerLawFit | None) -> str:
    """Return alpha and what it rests on, or the reason why there is none."""
    if fit is None:
        return ""
    if fit.status == "failed":
        return f"no fit: {fit.reason}"
    return f"alpha {fit.alpha:.2f} ± {fit.sigma:.2f}, tail {fit.n_tail} of {fit.n}, D {fit.D:.3f}"


def _positive(values: Spectrum | ArrayLike) -> np.ndarray:
    """Return the eigenvalues that are not zero, ascending."""
    found = np.sort(np.asarray(values, dtype=np.float64).ravel())
    return found[found > 0]


def _draw_shuffled(ax: Axes, evals: np.ndarray, edges: np.ndarray, scale: Scale) -> None:
    """Draw the outline of the ESD of the shuffled weight, and where it ends."""
    own, density = histogram(evals, scale, edges[-1] if scale == "lin" else None)
    ax.stairs(density, own, color=PURPLE, linewidth=1.2, label="shuffled")


def _mark(ax: Axes, spikes: np.ndarray, right: float) -> None:
    """Mark each spike at the lower edge of the axes."""
    label = plotted(f"{len(spikes)} spike{'' if len(spikes) == 1 else 's'}")
    shown = spikes[spikes <= right]
    ax.plot(
        shown,
        np.full(len(shown), 0.025),
        "|",
        color=GREEN,
        markersize=8,
        label=label,
        transform=ax.get_xaxis_transform(),
    )


def _scale_axes(ax: Axes, edges: np.ndarray, beyond: int, scale: Scale) -> None:
    """Set the scales, and count what lies beyond the right end of a linear axis."""
    if scale == "log-log":
        log_axis(ax, "x", "y")
        return
    ax.set_ylim(bottom=0)
    if scale == "log-lin":
        log_axis(ax, "x")
        return
    ax.set_xlim(0, edges[-1])
    if beyond:
        ax.text(
            0.99, 0.4, f"{beyond} more $\\rightarrow$", transform=ax.transAxes, ha="right", fontsize=SMALL, color=GREY
        )
