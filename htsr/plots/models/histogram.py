"""The distribution of a metric over the layers of a model."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from htsr.plots.models.depth import depth_table
from htsr.plots.style import BLUE, GREY, SMALL, VERMILION, ManyAxes, axes_for, label_axes, put_legend, span_x
from htsr.text import plotted

# The axis ends at the upper quartile plus this many interquartile ranges; what lies beyond is counted at the margin.
RANGES = 5.0
BINS = (6, 40)


class Counts(NamedTuple):
    """Layers in each bin of a metric.

    Attributes:
        edges: Edges of the bins.
        layers: Number of layers in each.
        noise: Number of layers whose noise has its median there; all zero if the table knows of no noise.
        beyond: Number of layers above the last edge.
        median: Median over all layers.
    """

    edges: np.ndarray
    layers: np.ndarray
    noise: np.ndarray
    beyond: int
    median: float


def histogram_of_layers(details: pd.DataFrame, column: str = "alpha") -> Counts:
    """Count layers by a metric.

    Args:
        details: A table as ``depth_table`` takes it.
        column: A numeric column.

    Returns:
        The counts.

    Raises:
        ValueError: As ``depth_table``.
    """
    values = depth_table(details, column)["value"]
    values = values[np.isfinite(values)].to_numpy()
    low, high = np.quantile(values, [0.25, 0.75])
    right = min(values.max(), high + RANGES * max(high - low, 1e-3 * abs(high), 1e-12))
    if column == "alpha":
        right = max(right, min(values.max(), 8.0))
    shown = values[values <= right]
    count = int(np.clip(len(np.histogram_bin_edges(shown, "auto")) - 1, *BINS))
    edges = np.histogram_bin_edges(shown, count)
    null = details[details["tied_to"] == ""].get(f"null_{column}", pd.Series(dtype="float64")).dropna()
    noise, _ = np.histogram(null.to_numpy(dtype="float64"), bins=edges)
    return Counts(edges, np.histogram(shown, bins=edges)[0], noise, len(values) - len(shown), float(np.median(values)))


def plot_histogram(details: pd.DataFrame, column: str = "alpha", *, ax: ManyAxes | None = None) -> Axes:
    """Draw how many layers have which value of a metric, beside those of noise of the same shapes.

    Args:
        details: ``Analysis.details`` or another table that ``depth_table`` takes.
        column: A numeric column. For alpha, lines show 2 and 6.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the column is not there or not numeric, or no layer has a value.
    """
    counts = histogram_of_layers(details, column)
    axes: Axes = axes_for(ax, width=5, height=3.2)[0, 0]
    axes.stairs(counts.layers, counts.edges, fill=True, color=BLUE, alpha=0.7, label="layers")
    if counts.noise.any():
        axes.stairs(counts.noise, counts.edges, color=GREY, linewidth=1.4, label="noise of their shapes (medians)")
    axes.axvline(counts.median, color=VERMILION, linewidth=1.2, label=f"median {counts.median:.3g}")
    if column == "alpha":
        span_x(axes, 2, 6)
    if counts.beyond:
        text = f"{counts.beyond} more $\\rightarrow$"
        axes.text(0.99, 0.4, text, transform=axes.transAxes, ha="right", fontsize=SMALL, color=GREY)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(axes, plotted(column), "layers")
    put_legend(axes, own=ax is None, crowded=True)
    return axes
