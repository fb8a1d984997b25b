"""The end of training against a setting of the runs: the mean over seeds, its interval, and each run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from htsr.plots.style import BLUE, VERMILION, ManyAxes, axes_for, label_axes, put_legend, put_title
from htsr.text import plotted


def plot_means_against(
    tables: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], by: str, *, ax: ManyAxes | None = None
) -> np.ndarray:
    """Draw means over seeds with their 95 % intervals, and each run, against a setting.

    Args:
        tables: For each metric the table of ``Runs.table``, and one with a row for each run: the setting and ``value``.
        by: The setting.
        ax: As many axes as there are metrics; a figure of its own by default.

    Returns:
        The axes, one for each metric.

    Raises:
        ValueError: If ``ax`` holds too few axes.
    """
    axes = axes_for(ax, 1, len(tables), width=4.2 * len(tables) + 0.4, height=3.4)[0]
    for panel, (metric, (means, runs)) in zip(axes, tables.items(), strict=True):
        settings = list(means[by])
        places = np.arange(len(settings))  # evenly, since powers and rates crowd at one end
        places_of_runs = runs[by].map(settings.index)
        panel.plot(
            places_of_runs, runs["value"], "o", color=BLUE, alpha=0.5, markersize=4, markeredgewidth=0, label="a run"
        )
        panel.fill_between(places, means["low"], means["high"], color=VERMILION, alpha=0.18, linewidth=0)
        margins = (means["mean"] - means["low"], means["high"] - means["mean"])
        panel.errorbar(
            places, means["mean"], margins, fmt="o-", color=VERMILION, capsize=3, label="mean, with its 95 % interval"
        )
        panel.set_xticks(
            places, [f"{value:.4g}" if isinstance(value, int | float) else str(value) for value in settings]
        )
        panel.set_xlim(-0.4, len(settings) - 0.6)
        label_axes(panel, plotted(by), plotted(metric))
        counts = sorted(set(means["n"]))
        put_title(panel, "", f"{counts[0]} to {counts[-1]} runs each" if len(counts) > 1 else f"{counts[0]} runs each")
    put_legend(axes, own=ax is None, crowded=True)
    return axes
