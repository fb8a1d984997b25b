"""The names of the rows and columns of a grid of cells, as many as fit."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from htsr.plots.style import CHARACTER, NORMAL, SMALL, figure_of, short_names

# An axis names no more rows than this many to the inch.
ROWS_TO_THE_INCH = 9


def name_rows(ax: Axes, names: list[str]) -> None:
    """Name the rows of a grid, as many as fit."""
    height = ax.get_position().height * figure_of(ax).get_figheight()
    stride = max(1, int(np.ceil(len(names) / (ROWS_TO_THE_INCH * height))))
    shown = range(0, len(names), stride)
    short = short_names(names, 26)
    ax.set_yticks(shown, [short[i] for i in shown], fontsize=SMALL - 1 if len(names) > 12 else SMALL)


def name_columns(ax: Axes, values: Sequence[int | str]) -> None:
    """Label the columns of a grid with steps or blocks, as many as fit; a single column needs no label."""
    if len(values) == 1:
        ax.set_xticks([])
        return
    width = ax.get_position().width * figure_of(ax).get_figwidth()
    longest = max(len(str(value)) for value in values)
    most = max(2, int(72 * width / (CHARACTER * NORMAL * (longest + 1.5))))
    shown = range(0, len(values), -(-len(values) // most))
    ax.set_xticks(shown, [str(values[i]) for i in shown])
