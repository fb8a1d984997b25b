"""The spectrum at the end of training against HTMuon's power p."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from htsr.plots.style import BLUE, VERMILION, log_y, new_figure

if TYPE_CHECKING:
    from htsr.training import History


def plot_against_power(runs: Mapping[float, "History"], columns: tuple[str, ...] = ("alpha", "stable_rank")) -> Figure:
    """Draw every layer at the last captured step, and the median over layers, against p.

    Args:
        runs: Power and history of each run.
        columns: Numeric columns of ``History.details``; each gets a panel.

    Returns:
        The figure.
    """
    known = next(iter(runs.values())).columns
    figure, axes = new_figure(1, len(columns), width=4.6 * len(columns), height=3.5)
    for ax, column in zip(axes[0], columns, strict=True):
        last = {power: history.over_steps(column).astype("float64").iloc[-1] for power, history in runs.items()}
        for power, values in last.items():
            ax.plot(np.full(len(values), power), values, "o", color=BLUE, alpha=0.35, markersize=4, markeredgewidth=0)
        ax.plot(list(last), [values.median() for values in last.values()], "o-", color=VERMILION, label="median")
        ax.set_xticks(list(last), [f"{power:g}" for power in last])
        ax.set_xlabel("HTMuon power p", fontsize=9)
        ax.set_ylabel(f"{known[column].label} at the last step", fontsize=9)
        log_y(ax)
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure
