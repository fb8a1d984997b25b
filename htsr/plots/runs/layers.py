"""A metric of each layer of one run against the optimizer step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from htsr.plots.grids import name_columns, name_rows
from htsr.plots.style import (
    GREY,
    SMALL,
    ManyAxes,
    axes_for,
    category_styles,
    figure_of,
    label_axes,
    put_legend,
    sequence_colours,
    sequence_map,
    short_names,
)  # fmt: skip
from htsr.plots.ticks import log_axis

if TYPE_CHECKING:
    from htsr.training import History

# With more layers than this, their intervals would hide each other and are left out; of more than the second number, a scale
# of colours says which is which, in place of a legend.
WITH_INTERVAL, WITH_LEGEND = 4, 12


def layers_over_steps(history: "History", column: str, layers: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a metric of some layers: steps down and layers across.

    Args:
        history: The run.
        column: A numeric column of ``History.details``.
        layers: Names of layers; all by default.

    Returns:
        The table, without tied layers.

    Raises:
        ValueError: If there is no such column or layer, or nothing in it.
    """
    if column not in history.details.select_dtypes("number"):
        raise ValueError(f"expected a layer, a recorded scalar or a numeric column of details, got {column!r}")
    table = history.over_steps(column).astype("float64")
    unknown = [name for name in layers or () if name not in table]
    if unknown:
        raise ValueError(f"expected layers= to be among {', '.join(table.columns[:10])}, got {unknown[0]!r}")
    table = table if layers is None else table[list(layers)]
    if table.isna().all(axis=None):
        raise ValueError(f"no layer has a value of {column} at any captured step")
    return table


def plot_layers_over_steps(
    history: "History", column: str = "alpha", *, layers: Sequence[str] | None = None, ax: ManyAxes | None = None
) -> Axes:
    """Draw a metric of each layer at each captured step; alpha of up to four layers with its 95 % interval.

    Args:
        history: The run.
        column: A numeric column of ``History.details``.
        layers: Names of the layers to draw; all by default.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no such column or layer, or nothing in it.
    """
    table = layers_over_steps(history, column, layers)
    axes: Axes = axes_for(ax, width=7, height=3.8)[0, 0]
    count = table.shape[1]
    few = count <= WITH_INTERVAL
    colours = [style["color"] for style in category_styles(count)] if few else sequence_colours(count)
    for colour, name, label in zip(colours, table, short_names(table), strict=True):
        width = 1.4 if count <= WITH_LEGEND else 0.8
        axes.plot(
            table.index,
            table[name],
            color=colour,
            marker="." if count <= WITH_LEGEND else "",
            linewidth=width,
            label=label,
        )
        if column == "alpha" and few:
            low, high = (history.over_steps(end)[name].astype("float64") for end in ("alpha_low", "alpha_high"))
            axes.fill_between(table.index, low, high, color=colour, alpha=0.18, linewidth=0)
    if column == "alpha":
        log_axis(axes, "y")
    label_axes(axes, "optimizer step", history.columns[column].label)
    if count > WITH_LEGEND:
        _colour_bar_of_layers(axes, list(table))
    elif count > 1:
        put_legend(axes, own=ax is None, crowded=True)
    else:
        axes.set_title(short_names(table, 60)[0], fontsize=SMALL + 1, loc="left")
    return axes


def plot_heat_map(
    history: "History", column: str = "alpha", *, layers: Sequence[str] | None = None, ax: ManyAxes | None = None
) -> Axes:
    """Draw a metric as a colour for each layer and captured step.

    Args:
        history: The run.
        column: A numeric column of ``History.details``.
        layers: Names of the layers to draw; all by default.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no such column or layer, or nothing in it.
    """
    table = layers_over_steps(history, column, layers)
    rows = table.shape[1]
    axes: Axes = axes_for(ax, width=6.4, height=float(np.clip(0.17 * rows + 1, 2.4, 9)))[0, 0]
    finite = table.to_numpy()[np.isfinite(table.to_numpy())]
    low, high = np.quantile(finite, [0.02, 0.98]) if len(finite) > 50 else (finite.min(), finite.max())
    image = axes.pcolormesh(
        np.arange(len(table) + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        table.T,
        cmap="viridis",
        vmin=low,
        vmax=high,
        linewidth=0,
    )
    axes.set_facecolor(GREY)  # a missing value is grey, which the map does not contain
    axes.grid(False)
    axes.invert_yaxis()
    name_rows(axes, list(table))
    name_columns(axes, list(table.index))
    label_axes(axes, "optimizer step")
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = figure_of(axes).colorbar(
        image, ax=axes, extend=ends[bool(finite.min() < low), bool(finite.max() > high)], pad=0.02
    )
    bar.set_label(history.columns[column].label, fontsize=SMALL + 1)
    bar.ax.tick_params(labelsize=SMALL)
    return axes


def _colour_bar_of_layers(ax: Axes, names: list[str]) -> None:
    """Explain the colours of many layers by the names of a few."""
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, len(names) - 1), sequence_map())
    ticks = np.linspace(0, len(names) - 1, 5).round()
    bar = figure_of(ax).colorbar(shades, ax=ax, ticks=ticks, pad=0.02)
    short = short_names(names, 24)
    bar.ax.set_yticklabels([short[int(tick)] for tick in ticks], fontsize=SMALL - 1)
    bar.ax.invert_yaxis()
