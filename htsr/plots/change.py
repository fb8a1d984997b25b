"""Figures of a comparison: how much each layer changed, and the spectrum of one change."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from htsr.plots.depth import MAX_NAMED
from htsr.plots.esd import log_axes, log_histogram
from htsr.plots.style import BLUE, GREEN, GREY, VERMILION, new_figure
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.comparison.compare import Comparison
    from htsr.comparison.layer import LayerComparison


def plot_change(comparison: "Comparison") -> Figure:
    """Draw the size of the change, alpha before and after, and the overlap of the leading subspaces, layer by layer.

    Args:
        comparison: What to draw. Tied layers are left out; a missing value leaves a gap.

    Returns:
        The figure.

    Raises:
        ValueError: If no layer could be compared.
    """
    details = comparison.details[comparison.details["tied_to"] == ""].reset_index(drop=True)
    if details["relative_change"].isna().all():
        raise ValueError("no layer could be compared")
    named = len(details) <= MAX_NAMED
    width = max(7.0, 0.24 * len(details)) if named else 12.0
    figure, axes = new_figure(3, 1, width=width, height=8.6 if named else 7.4, sharex=True)
    size, alpha, angle = axes[:, 0]
    at = np.arange(len(details))

    change = details["relative_change"].to_numpy()
    moved = (change > 0) & np.isfinite(change)
    size.plot(at[moved], change[moved], "o", color=BLUE, markersize=4, label="changed")
    grown = np.isinf(change)
    if grown.any():
        top = np.full(grown.sum(), 0.95)
        size.plot(
            at[grown], top, "^", color=VERMILION, markersize=5, transform=size.get_xaxis_transform(), label="was zero"
        )
    if moved.any():
        size.set_yscale("log")
    still = details["status"] == "unchanged"
    low = np.full(still.sum(), 0.05)
    size.plot(at[still], low, "x", color=GREY, markersize=4, transform=size.get_xaxis_transform(), label="unchanged")
    size.set_ylabel("$||B - A||_F$ / $||A||_F$", fontsize=9)
    before, after = details["alpha_a"].to_numpy(), details["alpha_b"].to_numpy()
    for bound in (2, 6):
        alpha.axhline(bound, color=GREY, linewidth=0.8, linestyle=":")
    alpha.vlines(at, np.fmin(before, after), np.fmax(before, after), color=GREY, linewidth=1)
    alpha.plot(at, before, "o", color=GREY, markersize=5, markerfacecolor="none", label="A")
    alpha.plot(at, after, "o", color=VERMILION, markersize=3, label="B")
    alpha.set_ylabel("alpha", fontsize=9)

    angle.plot(at, details["overlap_out"], "^", color=GREEN, markersize=4, label="overlap, outputs")
    angle.plot(at, details["overlap_in"], "v", color=BLUE, markersize=4, label="overlap, inputs")
    angle.plot(at, details["cka"], "_", color=VERMILION, markersize=6, label="CKA")
    angle.set_ylim(-0.03, 1.05)
    angle.set_ylabel("similarity of A and B", fontsize=9)
    for ax in axes[:, 0]:
        ax.legend(fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0)
    angle.set_xlim(-0.7, len(details) - 0.3)
    if named:
        angle.set_xticks(at, details["name"].map(plotted), rotation=90, fontsize=6)
    else:
        angle.set_xlabel("layer, in the order of the table", fontsize=9)
    return figure


def plot_esd_of_change(layer: "LayerComparison") -> Figure:
    """Draw the ESDs of A, of B and of the change on common log-log axes.

    Args:
        layer: One layer of a comparison.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no eigenvalue to draw.
    """
    figure, axes = new_figure(width=6, height=4)
    ax = axes[0, 0]
    drawn = 0
    for label, side, colour in (("A", layer.a, GREY), ("B", layer.b, BLUE), ("B - A", layer.delta, VERMILION)):
        if side.spectrum is None or not len(side.spectrum.nonzero):
            continue
        edges, density = log_histogram(side.spectrum.nonzero)
        fit = f", alpha {side.fit.alpha:.2f}" if side.fit.status == "success" else ", no fit"
        ax.stairs(density, edges, color=colour, linewidth=1.4, label=label + fit)
        drawn += 1
    if not drawn:
        raise ValueError(f"{layer.name!r} has no eigenvalue to draw")
    log_axes(ax)
    ax.set_title(plotted(layer.name), fontsize=10, loc="left")
    ax.set_xlabel("eigenvalue $\\lambda$", fontsize=9)
    ax.set_ylabel("density", fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    return figure
