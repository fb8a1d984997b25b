"""The ESD of one layer over the steps of a run: lines on top of each other, or a ridge for each step."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy
from matplotlib.axes import Axes

from htsr.plots.spectra.density import log_histogram
from htsr.plots.style import SMALL, ManyAxes, axes_for, label_axes, put_legend, put_title, sequence_colours
from htsr.plots.ticks import log_axis

if TYPE_CHECKING:
    from htsr.training import History

Quantity = Literal["weights", "gradients", "momentum", "updates"]
# Lines on top of each other, and ridges, that a reader can still tell apart; and how far a ridge reaches into the next.
LINES, RIDGES, OVERLAP = 5, 12, 1.8


def plot_esd_over_steps(
    history: "History", name: str, *, quantity: Quantity = "weights", ax: ManyAxes | None = None
) -> Axes:
    """Draw the ESD of one layer at a few captured steps, early steps dark.

    Args:
        history: The run.
        name: The layer.
        quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``, if the run captured it.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the layer has nothing to draw at any step.
    """
    drawn = _eigenvalues(history, name, quantity)
    axes: Axes = axes_for(ax, width=6, height=4)[0, 0]
    steps = spread(list(drawn), LINES)
    for step, colour in zip(steps, sequence_colours(len(steps)), strict=True):
        edges, density = log_histogram(drawn[step])
        filled = np.isfinite(density)
        middles = np.sqrt(edges[1:] * edges[:-1])
        axes.plot(
            middles[filled], density[filled], "o-", color=colour, linewidth=1.2, markersize=2.5, label=f"step {step}"
        )
    log_axis(axes, "x", "y")
    label_axes(axes, "eigenvalue $\\lambda$", "density")
    put_title(axes, name, "" if quantity == "weights" else quantity)
    put_legend(axes, own=ax is None)
    return axes


def ridges(history: "History", name: str, quantity: Quantity = "weights") -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Smooth the ESD of one layer at a few steps.

    Args:
        history: The run.
        name: The layer.
        quantity: What of the layer.

    Returns:
        Eigenvalues, and for each of at most 12 steps the density per decade there (a Gaussian kernel on the logarithm, with
        Scott's width).

    Raises:
        ValueError: If the layer has fewer than two different eigenvalues at every step.
    """
    drawn = {
        step: np.log10(evals) for step, evals in _eigenvalues(history, name, quantity).items() if np.ptp(evals) > 0
    }
    if not drawn:
        raise ValueError(f"{name!r} has no two different eigenvalues at any captured step")
    steps = spread(list(drawn), RIDGES)
    low = min(np.quantile(drawn[step], 0.02) for step in steps)
    high = max(drawn[step][-1] for step in steps)
    margin = 0.05 * (high - low)
    x = np.linspace(low - margin, high + margin, 300)
    return 10**x, {step: scipy.stats.gaussian_kde(drawn[step])(x) for step in steps}


def plot_ridgeline(
    history: "History", name: str, *, quantity: Quantity = "weights", ax: ManyAxes | None = None
) -> Axes:
    """Draw the ESD of one layer as a ridge for each of a few captured steps, the first at the top.

    Args:
        history: The run.
        name: The layer.
        quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``, if the run captured it.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the layer has nothing to draw at any step.
    """
    x, found = ridges(history, name, quantity)
    axes: Axes = axes_for(ax, width=5, height=4)[0, 0]
    height = OVERLAP / max(density.max() for density in found.values())
    for row, (density, colour) in enumerate(zip(found.values(), sequence_colours(len(found)), strict=True)):
        top = -row + height * density
        axes.fill_between(x, -row, top, color=axes.get_facecolor(), linewidth=0, zorder=1 + row)
        axes.fill_between(x, -row, top, color=colour, alpha=0.35, linewidth=0, zorder=1 + row)
        axes.plot(x, top, color=colour, linewidth=1.2, zorder=1 + row)
    axes.set_yticks(-np.arange(len(found)), [str(step) for step in found], fontsize=SMALL)
    axes.set_axisbelow(True)
    log_axis(axes, "x")
    axes.set_xlim(x[0], x[-1])
    label_axes(axes, "eigenvalue $\\lambda$", "optimizer step")
    put_title(axes, name, f"density per decade{'' if quantity == 'weights' else f' of the {quantity}'}")
    return axes


def _eigenvalues(history: "History", name: str, quantity: Quantity) -> dict[int, np.ndarray]:
    """Return the positive eigenvalues of a layer by step."""
    spectra = history.spectra(name, quantity)
    drawn = {step: spectrum.nonzero for step, spectrum in spectra.items() if len(spectrum.nonzero)}
    if not drawn:
        raise ValueError(f"{name!r} has no eigenvalue to draw at any captured step")
    return drawn


def spread(steps: list[int], count: int) -> list[int]:
    """Return at most ``count`` of the steps, evenly spread from the first to the last."""
    if len(steps) <= count:
        return steps
    return [steps[i] for i in np.linspace(0, len(steps) - 1, count).round().astype(int)]
