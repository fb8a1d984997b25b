"""What all figures share: colours, and axes without clutter."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe and Ito's palette, which colour-blind readers can tell apart; grey for context.
INK, GREY = "#222222", "#8a8a8a"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
CATEGORIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float, height: float, **subplots: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure, its sides in inches, and its axes, shape ``(rows, columns)``."""
    options = {"layout": "constrained", "squeeze": False, **subplots}
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
    plt.close(
        figure
    )  # a notebook then shows it once, as the value of the cell, and pyplot does not keep hundreds of them
    for ax in axes.flat:
        tidy(ax)
    return figure, axes


def tidy(ax: Axes) -> None:
    """Leave only the left and bottom spines, a light grid and small ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=INK)


def log_y(ax: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers at 1, 2, 5, 10, ..., for values that span few decades."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def sequence_colours(count: int) -> Sequence[tuple[float, ...]]:
    """Return colours for an ordered sequence, dark to light, without the palest end."""
    return [mpl.colormaps["viridis"](x) for x in np.linspace(0, 0.85, max(count, 1))]
