"""Several runs side by side: metrics and scalars over the steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from htsr.plots.runs.curves import Curve, curves, styles_of
from htsr.plots.style import ManyAxes, axes_for, explain, label_axes
from htsr.plots.ticks import log_axis
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.training import History


def plot_runs_over_steps(
    runs: Mapping[str, "History"],
    columns: Sequence[str] = ("alpha", "stable_rank"),
    *,
    by: str | None = None,
    ax: ManyAxes | None = None,
) -> np.ndarray:
    """Draw several runs side by side: for a metric the median over layers with its quartiles, for a scalar its smoothed values.

    Args:
        runs: Label and history of each run, in order.
        columns: Numeric columns of ``History.details``, or recorded scalars; each gets a panel.
        by: A setting, such as ``"power"`` or what stands in ``Monitor(about=...)``: runs that share its value, several seeds for
            instance, become one line, their mean, in a band from the lowest to the highest.
        ax: As many axes as there are columns; a figure of its own by default.

    Returns:
        The axes, one for each column.

    Raises:
        ValueError: If no run has one of the columns, a run does not tell the setting, or ``ax`` holds too few axes.
    """
    found = [curves(runs, column, by) for column in columns]
    axes = axes_for(ax, 1, len(columns), width=4.2 * len(columns) + 0.4, height=3.4)[0]
    known = next(iter(runs.values())).columns
    for panel, column, lines in zip(axes, columns, found, strict=True):
        _draw(panel, lines)
        several = by is not None and any(line.num_runs > 1 for line in lines)
        what = known[column].label if column in known else plotted(column.replace("_", " "))
        over_layers = ", median over layers" if column in known else ""
        label_axes(panel, "optimizer step", f"{what}{over_layers}" + (", mean and range" if several else ""))
        if column == "alpha":
            log_axis(panel, "y")
    longest = max(range(len(found)), key=lambda i: len(found[i]))
    explain(axes, axes[longest], own=ax is None)
    return axes


def plot_scalars(
    runs: Mapping[str, "History"], names: Sequence[str], *, by: str | None = None, ax: ManyAxes | None = None
) -> np.ndarray:
    """Draw recorded scalars of several runs, one panel for each name, on one scale.

    Args:
        runs: Label and history of each run, in order.
        names: Columns of ``History.scalars``; a run without one is left out of its panel.
        by: As in ``plot_runs_over_steps``.
        ax: As many axes as there are names; a figure of its own by default.

    Returns:
        The axes, one for each name.

    Raises:
        ValueError: As ``plot_runs_over_steps``.
    """
    axes = plot_runs_over_steps(runs, names, by=by, ax=ax)
    bottom, top = min(one.get_ylim()[0] for one in axes), max(one.get_ylim()[1] for one in axes)
    for one in axes:
        one.set_ylim(bottom, top)
    return axes


def _draw(ax: Axes, lines: list[Curve]) -> None:
    """Draw the curves of one panel."""
    for curve, style in zip(lines, styles_of(lines), strict=True):
        table = curve.table
        if table["low"].notna().any():
            ax.fill_between(table.index, table["low"], table["high"], color=style["color"], alpha=0.18, linewidth=0)
        label = plotted(curve.label, 40) + (f" ({curve.num_runs} runs)" if curve.num_runs > 1 else "")
        marker = "." if len(table) <= 20 else ""
        ax.plot(table.index, table["middle"], linewidth=1.4, marker=marker, label=label, **style)
