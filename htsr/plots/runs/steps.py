"""What optimizer steps were, divided by what their rules promise."""

import pandas as pd
from matplotlib.axes import Axes

from htsr.plots.style import BLUE, GREY, SMALL, VERMILION, ManyAxes, axes_for, label_axes, short_names
from htsr.plots.ticks import log_axis

# Verdicts that call for nobody.
SOUND = ("as promised", "no promise")
# Steps far below what was promised are drawn here.
LEAST = 1e-3


def plot_steps(details: pd.DataFrame, *, ax: ManyAxes | None = None) -> Axes:
    """Draw each step of each matrix, divided by the promise, in one row a matrix, with the verdict beside those with a fault.

    Args:
        details: ``StepAudit.details``.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.
    """
    names = list(dict.fromkeys(details["name"]))
    axes: Axes = axes_for(ax, width=6.5, height=max(1.6, 0.6 + 0.22 * len(names)))[0, 0]
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    for place, name in enumerate(names):
        rows = details[details["name"] == name]
        last = rows.iloc[-1]
        faulty = last["verdict"] not in SOUND
        colour = VERMILION if faulty else BLUE
        axes.plot(
            rows["step_vs_promise"].clip(lower=LEAST), [place] * len(rows), "o", color=colour, markersize=4, alpha=0.6
        )
        if faulty or pd.isna(last["step_vs_promise"]):
            note = axes.get_yaxis_transform()
            axes.text(1.01, place, last["verdict"], transform=note, va="center", fontsize=SMALL, color=colour)
    axes.set_yticks(range(len(names)), short_names(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    log_axis(axes, "x")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2))
    label_axes(axes, "step / promise")
    return axes
