"""Metrics against the optimizer step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from htsr.plots.style import log_y, new_figure, sequence_colours
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.training import History

# With more layers than this, their intervals would hide each other and are left out.
WITH_INTERVAL = 4


def plot_layers_over_steps(history: "History", column: str = "alpha") -> Figure:
    """Draw a metric of each layer at each captured step; alpha of a few layers with its 95 % interval.

    Args:
        history: The run.
        column: A numeric column of ``History.details``.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such column, or nothing in it.
    """
    if column not in history.details.select_dtypes("number"):
        raise ValueError(f"expected a layer or a numeric column of details, got {column!r}")
    table = history.over_steps(column).astype("float64")
    if table.isna().all(axis=None):
        raise ValueError(f"no layer has a value of {column} at any captured step")
    figure, axes = new_figure(width=7.5, height=4)
    ax = axes[0, 0]
    for colour, name in zip(sequence_colours(table.shape[1]), table, strict=True):
        ax.plot(table.index, table[name], color=colour, marker=".", linewidth=1.1, label=plotted(name))
        if column == "alpha" and table.shape[1] <= WITH_INTERVAL:
            low, high = (history.over_steps(end)[name].astype("float64") for end in ("alpha_low", "alpha_high"))
            ax.fill_between(table.index, low, high, color=colour, alpha=0.15, linewidth=0)
    if column == "alpha":
        log_y(ax)
    ax.set_xlabel("optimizer step", fontsize=9)
    ax.set_ylabel(history.columns[column].label, fontsize=9)
    if table.shape[1] <= 24:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return figure


def plot_runs_over_steps(runs: Mapping[str, "History"], columns: tuple[str, ...] = ("alpha", "stable_rank")) -> Figure:
    """Draw several runs side by side: the median over layers, with a band from the lower to the upper quartile.

    Args:
        runs: Label and history of each run, in order.
        columns: Numeric columns of ``History.details``; each gets a panel.

    Returns:
        The figure.
    """
    known = next(iter(runs.values())).columns
    figure, axes = new_figure(1, len(columns), width=4.6 * len(columns), height=3.5)
    for ax, column in zip(axes[0], columns, strict=True):
        for colour, (label, history) in zip(sequence_colours(len(runs)), runs.items(), strict=True):
            table = history.over_steps(column).astype("float64")
            ax.fill_between(
                table.index,
                table.quantile(0.25, axis=1),
                table.quantile(0.75, axis=1),
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            ax.plot(table.index, table.median(axis=1), color=colour, marker=".", linewidth=1.6, label=plotted(label))
        ax.set_xlabel("optimizer step", fontsize=9)
        ax.set_ylabel(f"{known[column].label}, median over layers", fontsize=9)
    log_y(axes[0, 0])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=6, fontsize=8, frameon=False)
    return figure


def plot_scalars(runs: Mapping[str, "History"], names: tuple[str, ...]) -> Figure:
    """Draw recorded scalars of several runs, one panel for each name, on one scale.

    Args:
        runs: Label and history of each run, in order.
        names: Columns of ``History.scalars``; a run without one is left out of its panel.

    Returns:
        The figure.
    """
    figure, axes = new_figure(1, len(names), width=4.6 * len(names), height=3.2, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        for colour, (label, history) in zip(sequence_colours(len(runs)), runs.items(), strict=True):
            scalars = history.scalars
            if name in scalars:
                values = scalars[["step", name]].dropna()
                smooth = values[name].rolling(max(1, len(values) // 40), min_periods=1).mean()
                ax.plot(values["step"], smooth, color=colour, linewidth=1.4, label=plotted(label))
        ax.set_xlabel("optimizer step", fontsize=9)
        ax.set_ylabel(plotted(name.replace("_", " ")), fontsize=9)
        ax.tick_params(labelleft=True)
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure
