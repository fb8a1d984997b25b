"""What a layer-wise schedule did to each layer, against the optimizer step."""

import pandas as pd
from matplotlib.axes import Axes

from htsr.plots.style import GREY, ManyAxes, axes_for, label_axes, put_legend, sequence_colours, short_names

# More layers than this have no legend.
WITH_LEGEND = 12


def plot_multipliers(table: pd.DataFrame, *, ax: ManyAxes | None = None) -> Axes:
    """Draw the multiplier, or the power, of each layer as a staircase over the steps.

    Args:
        table: What ``LayerwiseSchedule.table()`` returns.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the table has neither a column ``multiplier`` nor ``power``, or is empty.
    """
    what = next((name for name in ("multiplier", "power") if name in table), None)
    if what is None or table.empty:
        raise ValueError("expected a table of LayerwiseSchedule with at least one reading")
    names = list(table["name"].unique())
    over_steps = table.pivot(index="step", columns="name", values=what)
    axes: Axes = axes_for(ax, width=7, height=3.8)[0, 0]
    for name, label, colour in zip(names, short_names(names), sequence_colours(len(names)), strict=True):
        axes.step(over_steps.index, over_steps[name], where="post", color=colour, label=label, linewidth=1.2)
        axes.plot(over_steps.index[-1:], over_steps[name].iloc[-1:], ".", color=colour)
    if what == "multiplier":
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    label_axes(axes, "optimizer step", what)
    if 1 < len(names) <= WITH_LEGEND:
        put_legend(axes, own=ax is None, crowded=True)
    return axes
