"""The end of training against a numeric setting of the runs, such as HTMuon's power p."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from htsr.plots.runs.curves import are_numbers, setting
from htsr.plots.spectra.density import log_histogram
from htsr.plots.style import (
    BLUE,
    VERMILION,
    ManyAxes,
    axes_for,
    label_axes,
    put_legend,
    put_title,
    sequence_colours,
)  # fmt: skip
from htsr.plots.ticks import log_axis
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.training import History


def last_values(runs: Mapping[str, "History"], column: str, by: str = "power") -> pd.DataFrame:
    """Return a metric of every layer at the last capture of every run.

    Args:
        runs: Label and history of each run.
        column: A numeric column of ``History.details``.
        by: A numeric setting of the runs.

    Returns:
        One row a run and layer: ``setting``, ``run``, ``name`` and ``value``, the smallest setting first.

    Raises:
        ValueError: If a run does not tell the setting, or tells one that is no number.
    """
    known = numeric_settings(runs, by)
    tables = []
    for label, history in runs.items():
        last = history.over_steps(column).astype("float64").iloc[-1]
        tables.append(
            pd.DataFrame({"setting": known[label], "run": label, "name": last.index, "value": last.to_numpy()})
        )
    return pd.concat(tables).sort_values("setting", kind="stable").reset_index(drop=True)


def numeric_settings(runs: Mapping[str, "History"], by: str) -> dict[str, float]:
    """Return a numeric setting of each run, or raise a ``ValueError`` that names the run which has none."""
    known = {label: setting(history, by) for label, history in runs.items()}
    for label, value in known.items():
        if value is None or not are_numbers([value]):
            raise ValueError(f"expected {by!r} to be a number in every run, but {label!r} has {value!r}")
    return {label: float(value) for label, value in known.items()}


def plot_against(
    runs: Mapping[str, "History"],
    by: str = "power",
    columns: Sequence[str] = ("alpha", "stable_rank"),
    *,
    ax: ManyAxes | None = None,
) -> np.ndarray:
    """Draw every layer at the last captured step, and the median over layers, against a numeric setting of the runs.

    Args:
        runs: Label and history of each run. Several runs may share a setting: the line is the mean of their medians.
        by: The setting, such as ``"power"`` or ``"lr"``.
        columns: Numeric columns of ``History.details``; each gets a panel.
        ax: As many axes as there are columns; a figure of its own by default.

    Returns:
        The axes, one for each column.

    Raises:
        ValueError: If a run does not tell the setting as a number, or ``ax`` holds too few axes.
    """
    return _draw({column: last_values(runs, column, by) for column in columns}, next(iter(runs.values())), by, ax)


def plot_against_power(
    runs: Mapping[float, "History"], columns: Sequence[str] = ("alpha", "stable_rank"), *, ax: ManyAxes | None = None
) -> np.ndarray:
    """Draw every layer at the last captured step, and the median over layers, against p.

    Args:
        runs: Power and history of each run. ``plot_against`` reads the power from the runs, and takes several with the same.
        columns: Numeric columns of ``History.details``; each gets a panel.
        ax: As many axes as there are columns; a figure of its own by default.

    Returns:
        The axes, one for each column.

    Raises:
        ValueError: If ``ax`` holds too few axes.
    """
    tables = {}
    for column in columns:
        last = {power: history.over_steps(column).astype("float64").iloc[-1] for power, history in runs.items()}
        rows = [(power, str(power), name, value) for power, values in last.items() for name, value in values.items()]
        tables[column] = pd.DataFrame(rows, columns=["setting", "run", "name", "value"]).sort_values(
            "setting", kind="stable"
        )
    return _draw(tables, next(iter(runs.values())), "HTMuon power p", ax)


def plot_esd_against(
    runs: Mapping[str, "History"], name: str, by: str = "power", *, ax: ManyAxes | None = None
) -> Axes:
    """Draw the ESD of one layer at the last captured step of each run, coloured by a numeric setting.

    Args:
        runs: Label and history of each run.
        name: The layer.
        by: The setting, such as ``"power"`` or ``"lr"``; the first run of each value is drawn.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If a run does not tell the setting as a number.
        KeyError: If a run has no spectrum of the layer at its last step.
    """
    known = numeric_settings(runs, by)
    first = {value: label for label, value in reversed(known.items())}
    axes: Axes = axes_for(ax, width=6, height=4)[0, 0]
    for (value, label), colour in zip(sorted(first.items()), sequence_colours(len(first)), strict=True):
        edges, density = log_histogram(runs[label].spectrum(runs[label].steps[-1], name).nonzero)
        axes.stairs(density, edges, color=colour, linewidth=1.4, label=f"{plotted(by)} = {value:.4g}")
    log_axis(axes, "x", "y")
    label_axes(axes, "eigenvalue $\\lambda$", "density")
    put_title(axes, name, "at the last step")
    put_legend(axes, own=ax is None)
    return axes


def _draw(tables: Mapping[str, pd.DataFrame], history: "History", by: str, ax: ManyAxes | None) -> np.ndarray:
    """Draw the panel of each column."""
    axes = axes_for(ax, 1, len(tables), width=4.2 * len(tables) + 0.4, height=3.4)[0]
    for panel, (column, table) in zip(axes, tables.items(), strict=True):
        settings = list(dict.fromkeys(table["setting"]))
        place = table["setting"].map(settings.index)  # evenly, since powers and rates crowd at one end
        panel.plot(place, table["value"], "o", color=BLUE, alpha=0.6, markersize=4, markeredgewidth=0, label="a layer")
        medians = table.groupby(["setting", "run"])["value"].median().groupby("setting")
        panel.plot(range(len(settings)), medians.mean(), "o-", color=VERMILION, label="median over layers")
        panel.vlines(range(len(settings)), medians.min(), medians.max(), color=VERMILION, linewidth=2.5, alpha=0.6)
        panel.set_xticks(range(len(settings)), [f"{value:.4g}" for value in settings])
        panel.set_xlim(-0.4, len(settings) - 0.6)
        label_axes(panel, plotted(by), history.columns[column].label)
        put_title(panel, "", "at the last step")
        if (table["value"].dropna() > 0).all():
            log_axis(panel, "y")
    put_legend(axes, own=ax is None, crowded=True)
    return axes
