"""What all pictures share: axes without clutter, and colours that read on white and on black.

Texts, spines and faces keep the colours of matplotlib's current style, so that a picture drawn in a dark style is dark.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from textwrap import wrap
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from htsr.text import plotted

# Okabe and Ito's palette, which colour-blind readers can tell apart; grey for context. Their yellow vanishes on white and their
# black on black, so we leave these two out.
GREY = "#8a8a8a"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
CATEGORIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X"
# The part of plasma whose ends have at least twice the contrast ratio of no contrast against white and against black.
SEQUENCE, FIRST, LAST = "plasma", 0.24, 0.78

# What a function that draws on one axes, or on several, accepts as ``ax=``.
ManyAxes = Axes | Sequence[Axes] | np.ndarray

SMALL, NORMAL = 7, 8
# A character of matplotlib's default font is about this wide, in parts of its size.
CHARACTER = 0.56
# More entries than this go below the axes, not onto them.
MOST_INSIDE = 5


def axes_for(
    ax: ManyAxes | None, rows: int = 1, columns: int = 1, *, width: float, height: float, **subplots: Any
) -> np.ndarray:
    """Return the given axes, or those of a new figure with sides in inches, tidy and as an array ``(rows, columns)``.

    A sequence may hold more axes than there are panels; the others stay as they are.
    """
    if ax is None:
        options = {"layout": "constrained", "squeeze": False, **subplots}
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
        plt.close(
            figure
        )  # a notebook shows it once, as the value of the cell, and pyplot does not keep hundreds of them
        if to_rgba(figure.get_facecolor())[3] < 1:  # dark text on a transparent figure is lost in a dark notebook
            figure.set_facecolor(to_rgba(figure.get_facecolor(), 1.0))
    else:
        given = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
        if not all(isinstance(one, Axes) for one in given):
            raise TypeError(f"expected ax= to be matplotlib axes, got {ax!r}")
        if len(given) < rows * columns:
            raise ValueError(f"expected {rows * columns} axes, one for each panel, got {len(given)}")
        axes = np.empty(rows * columns, dtype=object)
        axes[:] = given[: rows * columns]
        axes = axes.reshape(rows, columns)
    for one in axes.flat:
        tidy(one)
    return axes


def figure_of(axes: ManyAxes) -> Figure:
    """Find the figure of some axes.

    Args:
        axes: What a function of this package returned.

    Returns:
        The figure that holds them, also through a subfigure.
    """
    figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    return cast(Figure, figure if isinstance(figure, Figure) else figure.figure)


def tidy(ax: Axes) -> None:
    """Leave only the left and bottom spines, a light grid and small ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color=GREY, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=NORMAL)


def label_axes(ax: Axes, x: str | None = None, y: str | None = None) -> None:
    """Write what the axes show."""
    if x is not None:
        ax.set_xlabel(x, fontsize=NORMAL + 1)
    if y is not None:
        ax.set_ylabel(y, fontsize=NORMAL + 1)


def put_title(ax: Axes, name: object, note: object = "") -> None:
    """Write a name and, below it, a note above the axes, no wider than the axes are."""
    lines = [plotted(name, max(12, room(ax, NORMAL + 1)))] if name else []
    lines += wrap(plotted(note, 400), max(12, room(ax, NORMAL + 1)))[:3]
    if lines:
        ax.set_title("\n".join(lines), fontsize=NORMAL + 1, loc="left")


def put_legend(ax: Axes, **options: Any) -> None:
    """Explain what is labelled, on a ground that hides the lines behind the words."""
    if "handles" not in options:
        options["handles"], options["labels"] = ax.get_legend_handles_labels()
    if options["handles"]:
        ax.legend(**{"fontsize": SMALL, "framealpha": 0.75, "edgecolor": "none", "borderaxespad": 0.2, **options})


def explain(axes: Sequence[Axes] | np.ndarray, labelled: Axes, *, own: bool) -> None:
    """Explain the lines of all axes at once: above a figure of our own, below or in the first of somebody's axes."""
    handles, labels = labelled.get_legend_handles_labels()
    if len(handles) < 2 and not own:
        put_legend(axes[0])
    elif own:
        figure = figure_of(axes)
        columns = max(
            1, min(len(handles), int(72 * figure.get_figwidth() / (CHARACTER * NORMAL * (max(map(len, labels)) + 7))))
        )
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=NORMAL, frameon=False)
    elif len(handles) > MOST_INSIDE and figure_of(axes).get_layout_engine() is not None:
        columns = max(1, min(3, room(axes[0], SMALL) // (max(map(len, labels)) + 6)))
        below = axes[0].transAxes + ScaledTranslation(0, -0.42, axes[0].figure.dpi_scale_trans)
        axes[0].legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, ncols=columns, fontsize=SMALL,
            frameon=False, borderaxespad=0,
        )  # fmt: skip
    else:
        put_legend(axes[0], handles=handles, labels=labels)


def room(ax: Axes, size: float) -> int:
    """Return how many characters of a font size fit beside each other above the axes."""
    width: float = ax.get_window_extent().width / ax.figure.dpi
    return int(72 * width / (CHARACTER * size))


def sequence_colours(count: int) -> Sequence[tuple[float, ...]]:
    """Return colours for an ordered sequence, dark to light, without the ends that vanish on black or on white."""
    return [sequence_map()(x) for x in (np.linspace(0, 1, count) if count > 1 else [0.5])]


def sequence_map() -> mpl.colors.Colormap:
    """Return the map behind ``sequence_colours``."""
    colours = mpl.colormaps[SEQUENCE](np.linspace(FIRST, LAST, 256))
    return mpl.colors.ListedColormap(colours, name="htsr")


def category_styles(count: int) -> list[dict[str, Any]]:
    """Return the colour, dashes and marker of each category; they differ even where more categories than colours exist."""
    styles = [
        {"color": colour, "linestyle": dashes, "marker": marker}
        for dashes, marker in zip(DASHES, MARKERS, strict=False)
        for colour in CATEGORIES
    ]
    return list(islice(cycle(styles), count))


def span(ax: Axes, low: float, high: float) -> None:
    """Shade the values between two bounds of alpha, and draw the bounds."""
    ax.axhspan(low, high, color=GREY, alpha=0.08, linewidth=0, zorder=0)
    for bound in (low, high):
        ax.axhline(bound, color=GREY, linewidth=0.8, linestyle=":", zorder=0.5)


def span_x(ax: Axes, low: float, high: float) -> None:
    """Draw two bounds of alpha on a horizontal axis, those that it reaches."""
    left, right = ax.get_xlim()
    for bound in (low, high):
        if left <= bound <= right:
            ax.axvline(bound, color=GREY, linewidth=0.8, linestyle=":", zorder=0.5)


def short_names(names: Iterable[str], length: int = 30) -> list[str]:
    """Return names for a picture: without the components that all begin with, and folded in the middle."""
    parts = [name.split(".") for name in names]
    shared = 0
    while (
        len(parts) > 1 and all(len(part) > shared + 1 for part in parts) and len({part[shared] for part in parts}) == 1
    ):
        shared += 1
    return [plotted(".".join(part[shared:]), length) for part in parts]
