"""A metric against depth."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from htsr.plots.style import CATEGORIES, GREY, log_y, new_figure
from htsr.text import plotted

# With more layers than this, their names would overlap and are left out.
MAX_NAMED = 80


def plot_depth(details: pd.DataFrame, column: str = "alpha") -> Figure:
    """Draw a metric of each layer, in the order of the table.

    Args:
        details: ``Analysis.details``. Tied layers are left out; layers without a value leave a gap.
        column: A numeric column. For alpha a bar shows the 95 % interval where there is one and one sigma each way where
            there is none, and lines show 2 and 6.

    Returns:
        The figure.

    Raises:
        ValueError: If the column is not there or not numeric, or no layer has a value.
    """
    numeric = [name for name in details.columns if pd.api.types.is_numeric_dtype(details[name])]
    if column not in numeric:
        raise ValueError(f"expected 'esd' or one of the numeric columns {', '.join(numeric)}, got {column!r}")
    layers = details[details["tied_to"] == ""].reset_index(drop=True)
    values = layers[column].astype("float64")
    if not np.isfinite(values).any():
        raise ValueError(f"no layer has a value of {column}")

    named = len(layers) <= MAX_NAMED
    figure, axes = new_figure(width=max(7.0, 0.24 * len(layers)) if named else 12.0, height=4.6 if named else 3.4)
    ax = axes[0, 0]
    if column == "alpha":
        ax.axhspan(2, 6, color="#f3f3f3", zorder=0)
        for bound in (2, 6):
            ax.axhline(bound, color=GREY, linewidth=0.8, linestyle=":")
    ax.plot(values, color=GREY, linewidth=0.6, alpha=0.6, zorder=1)
    for colour, (kind, group) in zip(CATEGORIES, layers.groupby("layer_type", sort=False), strict=False):
        errors = _bars(group) if column == "alpha" else None
        ax.errorbar(
            group.index,
            values[group.index],
            yerr=errors,
            fmt="o",
            markersize=4,
            elinewidth=0.9,
            color=colour,
            label=plotted(kind),
        )
    tallest = float(np.nanmax(values))
    if column == "alpha" and ax.get_ylim()[1] > 2 * tallest:
        ax.set_ylim(0, 2 * tallest)  # an interval may reach far; the values must stay readable
    if np.nanmin(values) > 0 and tallest > 20 * np.nanmedian(values):
        log_y(ax)
    bars = "95 % interval" if layers["alpha_low"].notna().any() else "± sigma"
    ax.set_ylabel(f"alpha, {bars}" if column == "alpha" else column, fontsize=9)
    ax.set_xlim(-0.7, len(layers) - 0.3)
    if named:
        ax.set_xticks(range(len(layers)), layers["name"].map(plotted), rotation=90, fontsize=6)
    else:
        ax.set_xlabel("layer, in the order of the table", fontsize=9)
    handles, labels = ax.get_legend_handles_labels()
    if column == "alpha":
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":"))
        labels.append("2 and 6: over-trained below, under-trained above")
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside upper left", ncols=5)
    return figure


def _bars(layers: pd.DataFrame) -> np.ndarray:
    """Return how far the bars of alpha reach down and up, shape (2, layers)."""
    low = (layers["alpha"] - layers["alpha_low"]).fillna(layers["sigma"])
    high = (layers["alpha_high"] - layers["alpha"]).fillna(layers["sigma"])
    return np.stack([low, high])
