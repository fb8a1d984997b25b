"""Something of each layer against the width of the model."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from htsr.plots.style import GREY, ManyAxes, axes_for, category_styles, folded, label_axes, put_legend, put_title
from htsr.plots.ticks import log_axis

# More names than this say nothing in a legend.
MAX_NAMED = 12


def plot_widths(
    panels: Mapping[str, tuple[pd.DataFrame, Collection[str]]], label: str, *, ax: ManyAxes | None = None
) -> np.ndarray:
    """Draw the geometric mean of each layer's values against the width.

    Args:
        panels: For each title, a table with the columns ``name``, ``width`` and ``value``, and the names of the layers to
            colour; the others are grey.
        label: What the values are.
        ax: As many axes as there are panels; a figure of its own by default.

    Returns:
        The axes, one for each panel.

    Raises:
        ValueError: If ``ax`` holds too few axes.
    """
    axes = axes_for(ax, 1, len(panels), width=4.2 * len(panels) + 0.4, height=3.4)[0]
    marked = list(dict.fromkeys(name for _, names in panels.values() for name in names))[:MAX_NAMED]
    styles = dict(zip(marked, category_styles(len(marked)), strict=True))
    for panel, (title, (table, names)) in zip(axes, panels.items(), strict=True):
        drawn = table[table["value"] > 0]
        means = np.exp(np.log(drawn["value"]).groupby([drawn["name"], drawn["width"]], sort=False).mean())
        for name, of in means.groupby(level=0, sort=False):
            line = of.droplevel(0).sort_index()
            style = styles.get(str(name)) if name in names else None
            text = folded(name, 30) if style else "_"
            style = style or {"color": GREY, "alpha": 0.7, "marker": "."}
            panel.plot(line.index, line, label=text, markersize=4, linewidth=1.2, **style)
        log_axis(panel, "x", "y")
        panel.set_xticks(sorted(set(table["width"])), [f"{width:g}" for width in sorted(set(table["width"]))])
        panel.minorticks_off()
        label_axes(panel, "width", label)
        put_title(panel, title)
    put_legend(axes, own=ax is None, crowded=True)
    return axes
