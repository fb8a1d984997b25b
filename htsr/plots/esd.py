"""Empirical spectral densities."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from htsr.plots.style import BLUE, GREY, VERMILION, new_figure, sequence_colours
from htsr.spectra.spectrum import Spectrum
from htsr.tails import PowerLawFit
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.training import History

MAX_PANELS = 60


def plot_esd(spectrum: Spectrum, fit: PowerLawFit, *, title: str = "", bulk_max: float | None = None) -> Figure:
    """Draw one ESD on log-log axes with its fitted tail.

    Args:
        spectrum: The eigenvalues.
        fit: The power law. A failed fit is not drawn, and the title says so.
        title: The layer's name.
        bulk_max: Upper edge of the noise bulk, drawn where given.

    Returns:
        The figure.
    """
    figure, axes = new_figure(width=6, height=4)
    _draw_esd(axes[0, 0], spectrum, fit, bulk_max)
    axes[0, 0].set_title(_title(title, fit), fontsize=10, loc="left")
    axes[0, 0].set_xlabel("eigenvalue $\\lambda$ of $W^T W$", fontsize=9)
    axes[0, 0].set_ylabel("density", fontsize=9)
    if len(spectrum.nonzero):
        axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def plot_esds(analysis: "Analysis") -> Figure:
    """Draw the ESDs of all layers as small panels, in model order.

    Args:
        analysis: What to draw. Tied layers are drawn once. Of more than 60 layers only the first 60 are drawn, and the
            figure says so.

    Returns:
        The figure.

    Raises:
        ValueError: If no layer has a spectrum.
    """
    layers = [layer for layer in analysis if layer.spectrum is not None and not layer.row["tied_to"]]
    if not layers:
        raise ValueError(f"{analysis.source}: no layer has a spectrum to draw")
    shown = layers[:MAX_PANELS]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    # placed by hand, since the automatic layout takes ten seconds for 60 panels
    width, height = max(3.4 * columns, 5.0), 2.4 * rows + 0.4
    figure, axes = new_figure(rows, columns, width=width, height=height, layout="none")
    figure.subplots_adjust(
        left=0.45 / width, right=1 - 0.1 / width, bottom=0.3 / height, top=1 - 0.75 / height, wspace=0.22, hspace=0.42
    )
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, layer in zip(axes.flat, shown, strict=False):
        assert layer.spectrum is not None
        _draw_esd(ax, layer.spectrum, layer.fit, layer.bulk_max)
        ax.set_title(_title(layer.name, layer.fit), fontsize=7, loc="left")
        ax.tick_params(labelsize=6)
    figure.legend(handles=_legend(), loc="upper right", ncols=4, fontsize=8, frameon=False)
    if len(layers) > len(shown):
        figure.text(0.01, 1 - 0.1 / height, f"the first {len(shown)} of {len(layers)} layers", fontsize=9, va="top")
    return figure


def plot_esd_over_steps(history: "History", name: str, *, ax: Axes | None = None) -> Figure:
    """Draw the ESD of one layer at a few captured steps, early steps dark.

    Args:
        history: The run.
        name: The layer.
        ax: Draw here instead of in a figure of its own.

    Returns:
        The figure.

    Raises:
        ValueError: If the layer has nothing to draw at any step.
    """
    if ax is None:
        figure, axes = new_figure(width=6, height=4)
        ax = axes[0, 0]
        ax.set_title(plotted(name), fontsize=10, loc="left")
        ax.set_xlabel("eigenvalue $\\lambda$ of $W^T W$", fontsize=9)
        ax.set_ylabel("density", fontsize=9)
    else:
        figure = ax.get_figure()  # type: ignore[assignment]
    drawn = {step: spectrum.nonzero for step, spectrum in history.spectra(name).items() if len(spectrum.nonzero)}
    if not drawn:
        raise ValueError(f"{name!r} has no eigenvalue to draw at any captured step")
    steps = _spread(list(drawn), 5)
    for step, colour in zip(steps, sequence_colours(len(steps)), strict=True):
        edges, density = log_histogram(drawn[step])
        filled = np.isfinite(density)
        middles = np.sqrt(edges[1:] * edges[:-1])
        ax.plot(
            middles[filled], density[filled], "o-", color=colour, linewidth=1.2, markersize=2.5, label=f"step {step}"
        )
    log_axes(ax)
    ax.legend(fontsize=7, frameon=False)
    return figure


def _legend() -> list[Artist]:
    """Return what explains the lines of all panels at once."""
    return [
        Patch(color=BLUE, alpha=0.35, linewidth=0, label="ESD"),
        Line2D([], [], color=VERMILION, linewidth=1.6, label="power law"),
        Line2D([], [], color=VERMILION, linewidth=0.9, linestyle="--", label="xmin"),
        Line2D([], [], color=GREY, linewidth=1.2, linestyle=":", label="noise edge"),
    ]


def _draw_esd(ax: Axes, spectrum: Spectrum, fit: PowerLawFit, bulk_max: float | None) -> None:
    """Draw an ESD, its fitted tail and its noise edge."""
    evals = spectrum.nonzero
    if not len(evals):
        ax.text(0.5, 0.5, "all eigenvalues are zero", transform=ax.transAxes, ha="center", fontsize=8, color=GREY)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    edges, density = log_histogram(evals)
    ax.stairs(density, edges, fill=True, color=BLUE, alpha=0.35, linewidth=0, label="ESD")
    if fit.status == "success":
        x = np.geomspace(fit.xmin, fit.xmax, 100)
        tail_share = fit.n_tail / len(evals)
        ax.plot(
            x,
            tail_share * (fit.alpha - 1) / fit.xmin * (x / fit.xmin) ** -fit.alpha,
            color=VERMILION,
            linewidth=1.6,
            label=f"power law, alpha = {fit.alpha:.2f} $\\pm$ {fit.sigma:.2f}",
        )
        ax.axvline(fit.xmin, color=VERMILION, linestyle="--", linewidth=0.9, label=f"xmin = {fit.xmin:.3g}")
    if bulk_max is not None:
        ax.axvline(bulk_max, color=GREY, linestyle=":", linewidth=1.2, label=f"noise edge = {bulk_max:.3g}")
    log_axes(ax)


def log_axes(ax: Axes) -> None:
    """Make both axes logarithmic, without labels between the decades."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())


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


def _title(name: str, fit: PowerLawFit) -> str:
    """Return a layer's name with its alpha below, or with the reason why it has none."""
    if fit.status == "failed":
        return f"{plotted(name)}\nno fit: {plotted(fit.reason)}"
    return f"{plotted(name)}\nalpha {fit.alpha:.2f}, {fit.n_tail} of {fit.n} values in the tail, D {fit.D:.3f}"


def _spread(steps: list[int], count: int) -> list[int]:
    """Return at most ``count`` of the steps, evenly spread from the first to the last."""
    if len(steps) <= count:
        return steps
    return [steps[i] for i in np.linspace(0, len(steps) - 1, count).round().astype(int)]
