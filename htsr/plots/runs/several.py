"""Several runs side by side: metrics and scalars over the steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from htsr.plots.runs.curves import Curve, curves, styles_of
from htsr.plots.style import ManyAxes, axes_for, label_axes, put_legend, put_title
from htsr.plots.ticks import log_axis
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.training import History

# The quartiles of more runs than this would hide each other.
WITH_BANDS = 4


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
            instance, become one line, their mean, in a band from the lowest to the highest. By default, runs of ``Runs`` that
            differ in their seed alone do so, unless somebody named them; with ``"run"`` each run has its line.
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
        with_bands = len(lines) <= WITH_BANDS or any(line.num_runs > 1 for line in lines)
        _draw(panel, lines, with_bands=with_bands)
        grouped = any(line.num_runs > 1 for line in lines)
        note = (
            f"median over layers{', with quartiles' if with_bands and not grouped else ''}" if column in known else ""
        )
        if grouped:
            note = f"{note}{'; ' if note else ''}mean and range of the runs"
        put_title(panel, "", note)
        label_axes(panel, "optimizer step", known[column].label if column in known else plotted(column))
        if column == "alpha":
            log_axis(panel, "y")
    if max(map(len, found)) > 1:
        put_legend(axes, own=ax is None, crowded=True)
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


def _draw(ax: Axes, lines: list[Curve], *, with_bands: bool) -> None:
    """Draw the curves of one panel."""
    for curve, style in zip(lines, styles_of(lines), strict=True):
        table = curve.table
        if with_bands and table["low"].notna().any():
            ax.fill_between(table.index, table["low"], table["high"], color=style["color"], alpha=0.18, linewidth=0)
        label = plotted(curve.label, 40) + (f" ({curve.num_runs} runs)" if curve.num_runs > 1 else "")
        marker = "." if len(table) <= 20 else ""
        ax.plot(table.index, table["middle"], linewidth=1.4, marker=marker, label=label, **style)
