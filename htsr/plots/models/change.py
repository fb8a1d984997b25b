"""Pictures of a comparison: how much each layer changed, and one layer before and after."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from htsr.plots.models.places import by_depth, places
from htsr.plots.spectra.density import histogram
from htsr.plots.style import (
    BLUE,
    GREEN,
    GREY,
    SMALL,
    VERMILION,
    ManyAxes,
    axes_for,
    label_axes,
    put_legend,
    put_title,
    short_names,
    span,
)  # fmt: skip
from htsr.plots.ticks import LogLabels, LogTicks, log_axis

if TYPE_CHECKING:
    from htsr.comparison.compare import Comparison
    from htsr.comparison.layer import LayerComparison

# A name that stands upright takes this many points of the axis; without room for all, none is written.
ROTATED = 7.5
# Layers that did not change stand in a strip of their own, this share of the axes, below the logarithmic scale.
STRIP = 0.12


def changed_layers(details: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a comparison that a picture shows, blocks in their natural order, without tied layers.

    Args:
        details: ``Comparison.details``.

    Returns:
        The rows.
    """
    own = details[details["tied_to"] == ""].reset_index(drop=True)
    return own.iloc[by_depth(places(own["name"], own["layer_type"]))].reset_index(drop=True)


def plot_change(comparison: "Comparison", *, ax: ManyAxes | None = None) -> np.ndarray:
    """Draw the size of the change, alpha before and after, and the overlap of the leading subspaces, layer by layer.

    Args:
        comparison: What to draw. Tied layers are left out; a missing value leaves a gap.
        ax: Three axes; a figure of its own by default.

    Returns:
        The three axes.

    Raises:
        ValueError: If no layer could be compared, or ``ax`` holds fewer than three axes.
    """
    details = changed_layers(comparison.details)
    if details["relative_change"].isna().all():
        raise ValueError("no layer could be compared")
    width = float(np.clip(0.15 * len(details), 6.4, 12))
    axes = axes_for(ax, 3, 1, width=width, height=7.2, sharex=True)[:, 0]
    named = len(details) * ROTATED < 72 * axes[-1].get_window_extent().width / axes[-1].figure.dpi
    size, alpha, angle = axes
    _draw_size(size, details)
    _draw_alpha(alpha, details)
    at = np.arange(len(details))
    angle.plot(at, details["overlap_out"], "^", color=GREEN, markersize=4, label="overlap, outputs")
    angle.plot(at, details["overlap_in"], "v", color=BLUE, markersize=4, label="overlap, inputs")
    angle.plot(at, details["cka"], "_", color=VERMILION, markersize=6, label="CKA")
    angle.set_ylim(-0.03, 1.05)
    label_axes(angle, y="similarity")
    for one in axes:
        one.legend(fontsize=SMALL, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
        one.set_xlim(-0.7, len(details) - 0.3)
        one.tick_params(labelbottom=one is angle)
    if named:
        angle.set_xticks(at, short_names(details["name"], 26), rotation=90, fontsize=SMALL - 1)
    else:
        label_axes(angle, "layer, by depth")
    return axes


def plot_esd_of_change(layer: "LayerComparison", *, ax: ManyAxes | None = None) -> Axes:
    """Draw the ESDs of A, of B and of the change on common log-log axes.

    Args:
        layer: One layer of a comparison.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no eigenvalue to draw.
    """
    sides = (("A", layer.a, GREY), ("B", layer.b, BLUE), ("B - A", layer.delta, VERMILION))
    shown = [
        (label, side, colour)
        for label, side, colour in sides
        if side.spectrum is not None and len(side.spectrum.nonzero)
    ]
    if not shown:
        raise ValueError(f"{layer.name!r} has no eigenvalue to draw")
    axes: Axes = axes_for(ax, width=6, height=4)[0, 0]
    for label, side, colour in shown:
        assert side.spectrum is not None
        edges, density = histogram(side.spectrum.nonzero)
        fit = f", alpha {side.fit.alpha:.2f}" if side.fit.status == "success" else ", no fit"
        axes.stairs(density, edges, color=colour, linewidth=1.4, label=label + fit)
    log_axis(axes, "x", "y")
    label_axes(axes, "eigenvalue $\\lambda$", "density")
    put_title(axes, layer.name)
    put_legend(axes, own=ax is None)
    return axes


def _draw_size(ax: Axes, details: pd.DataFrame) -> None:
    """Draw how large each change is; layers that did not change, or were zero, stand at the margins."""
    at, change = np.arange(len(details)), details["relative_change"].to_numpy()
    moved = (change > 0) & np.isfinite(change)
    margin: dict[str, Any] = {"linestyle": "none", "transform": ax.get_xaxis_transform()}
    ax.plot(at[moved], change[moved], "o", color=BLUE, markersize=4, label="changed")
    grown, still = np.isinf(change), (details["status"] == "unchanged").to_numpy()
    if grown.any():
        ax.plot(at[grown], np.full(grown.sum(), 0.95), marker="^", color=VERMILION, label="was zero", **margin)
    if moved.any():
        log_axis(ax, "y")
    if still.any():
        style: dict[str, Any] = {"marker": "x", "color": GREY, "markersize": 4, "label": "unchanged"}
        ax.plot(at[still], np.full(still.sum(), _strip(ax)), **style, **margin)
    label_axes(ax, y="relative change")


def _strip(ax: Axes) -> float:
    """Make room below the values for those that are zero, and return the height of its middle as a share of the axes."""
    if ax.get_yscale() != "log":
        ax.set_ylim(0, 1)
        ax.set_yticks([STRIP / 2], ["0"])
    else:
        low, high = np.log10(ax.get_ylim())
        ticks = LogTicks()
        ticks.set_axis(ax.yaxis)
        kept = [tick for tick in ticks() if low <= np.log10(tick) <= high]
        fewer = (low - STRIP * high) / (1 - STRIP)
        zero = 10 ** (fewer + STRIP / 2 * (high - fewer))
        labels = LogLabels()
        labels.set_locs(kept)
        ax.set_yticks([zero, *kept], ["0", *map(labels, kept)])
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(10**fewer, 10**high)
    ax.add_patch(Rectangle((0, 0), 1, STRIP, transform=ax.transAxes, color=GREY, alpha=0.15, linewidth=0, zorder=0))
    return STRIP / 2


def _draw_alpha(ax: Axes, details: pd.DataFrame) -> None:
    """Draw alpha before and after."""
    at, before, after = np.arange(len(details)), details["alpha_a"].to_numpy(), details["alpha_b"].to_numpy()
    span(ax, 2, 6)
    ax.vlines(at, np.fmin(before, after), np.fmax(before, after), color=GREY, linewidth=1)
    ax.plot(at, before, "o", color=GREY, markersize=5, markerfacecolor="none", label="A")
    ax.plot(at, after, "o", color=VERMILION, markersize=3, label="B")
    label_axes(ax, y="alpha")
