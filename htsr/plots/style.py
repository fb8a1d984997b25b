"""What all pictures share: axes without clutter, and colours that read on white and on black.

Texts, spines and faces keep the colours of matplotlib's current style, so that a picture drawn in a dark style is dark.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from textwrap import wrap
from typing import Any, cast
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotParams
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.transforms import ScaledTranslation

from htsr.text import escaped, plotted

# Okabe and Ito's palette, which colour-blind readers can tell apart; grey for context. Their yellow vanishes on white and their
# black on black, so we leave these two out.
GREY = "#8a8a8a"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
CATEGORIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X"
# The part of plasma whose ends have at least twice the contrast ratio of no contrast against white and against black.
SEQUENCE, FIRST, LAST = "plasma", 0.28, 0.78

# An end of a name that is no longer than this, such as "dense", says little without what stands before it.
TERSE = 5
# A first component that this share of all names have says little.
NEARLY_ALL = 0.8

# What a function that draws on one axes, or on several, accepts as ``ax=``.
ManyAxes = Axes | Sequence[Axes] | np.ndarray

SMALL, NORMAL = 7, 8
# A character of matplotlib's default font is about this wide, in parts of its size.
CHARACTER = 0.56
# A legend that covers more than this share of its axes goes beside them, below with a gap of this many inches.
MOST_COVERED, GAP = 0.14, 0.06
# Axes and the names beside them are at least this wide, in widths of matplotlib's default axes.
WITH_NAMES = 1.18
# The margins of a figure without a layout, and those that we gave to some.
SIDES = ("left", "right", "bottom", "top", "wspace", "hspace")
_laid_out: "WeakKeyDictionary[Figure, tuple[float, ...]]" = WeakKeyDictionary()
# What stands before a label, and the gap to the next one, take this many characters.
HANDLE = 6


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
    width = max(12, room(ax, NORMAL))
    lines = [folded(name, width)] if name else []
    lines += wrap(plotted(note, 400), width)[:3]
    if lines:
        ax.set_title("\n".join(lines), fontsize=NORMAL, loc="left")


def put_legend(
    axes: Axes | Sequence[Axes] | np.ndarray,
    handles: Sequence[Artist] | None = None,
    *,
    own: bool,
    crowded: bool = False,
    loc: Any = "best",
    **options: Any,
) -> None:
    """Explain what is labelled: on the axes if the legend is small there, else beside them.

    ``own`` says that the figure is ours, and ``crowded`` that the data leave no room on the axes.
    """
    each = [axes] if isinstance(axes, Axes) else list(axes)
    if handles is None:
        most = max(each, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
        handles, labels = most.get_legend_handles_labels()
    else:
        labels = [str(handle.get_label()) for handle in handles]
    if handles:
        _explain(each, handles, labels, own=own, crowded=crowded, loc=loc, **options)
    make_room(each[0])


def _explain(
    each: Sequence[Axes],
    handles: Sequence[Artist],
    labels: list[str],
    *,
    own: bool,
    crowded: bool,
    loc: Any,
    **options: Any,
) -> None:
    """Draw the legend."""
    figure = figure_of(each[0])
    longest = max(map(len, labels)) + HANDLE
    crowded = crowded or (longest * CHARACTER * SMALL) * (len(labels) * 1.4 * SMALL) > MOST_COVERED * _area(each[0])
    settings: dict[str, Any] = {"fontsize": SMALL, "handlelength": 1.4, "handletextpad": 0.5, **options}
    if not crowded or (not _has_layout(figure) and not _is_free(each[0])):
        each[0].legend(handles, labels, **settings, loc=loc, framealpha=0.75, edgecolor="none", borderaxespad=0.2)
        return
    settings |= {"frameon": False, "columnspacing": 1.0}
    if own or (len(each) > 1 and _has_layout(figure)):
        ncols = _columns(labels, int(72 * figure.get_figwidth() / (CHARACTER * SMALL)))
        settings |= {"ncols": ncols, "loc": "outside upper left" if own else "outside lower left"}
        figure.legend(handles, labels, **settings)
        return
    last = each[-1]
    box = last.get_tightbbox() or last.bbox
    beside, under = (
        float(inner - outer) / last.figure.dpi for inner, outer in zip(last.bbox.min, box.min, strict=True)
    )
    # it begins below the names of the rows, so that it has the width of axes and names together
    below = last.transAxes + ScaledTranslation(-beside, -under - GAP, last.figure.dpi_scale_trans)
    settings |= {"ncols": _columns(labels, int(WITH_NAMES * room(last, SMALL))), "borderaxespad": 0}
    last.legend(handles, labels, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, **settings)


def make_room(ax: Axes) -> None:
    """Move the axes of a figure that nobody laid out so far inside that their names, title and legend are not cut."""
    figure = figure_of(ax)
    if _has_layout(figure) or not _is_free(ax):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the axes are too small for their texts: they stay where they are
        figure.tight_layout(pad=0.5)
    _laid_out[figure] = _margins(figure.subplotpars)


def _has_layout(figure: Figure) -> bool:
    """Return whether matplotlib lays the figure out whenever it draws it."""
    return not isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine | None)


def _is_free(ax: Axes) -> bool:
    """Return whether the axes stand where ``plt.subplots``, or we, put them, and not where somebody else did."""
    figure = figure_of(ax)
    return ax.get_subplotspec() is not None and _margins(figure.subplotpars) in (
        _margins(SubplotParams()),
        _laid_out.get(figure),
    )


def _margins(margins: SubplotParams) -> tuple[float, ...]:
    """Return where a figure's axes stand."""
    return tuple(getattr(margins, side) for side in SIDES)


def _columns(labels: Sequence[str], room: int) -> int:
    """Return the largest number of columns in which the labels, one column after the other, take up to ``room`` characters."""
    for columns in range(len(labels), 1, -1):
        filled = np.array_split([len(label) + HANDLE for label in labels], columns)
        if sum(column.max() for column in filled) <= room:
            return columns
    return 1


def _area(ax: Axes) -> float:
    """Return the area of some axes in square points."""
    box = ax.get_window_extent()
    return float(box.width * box.height * (72 / ax.figure.dpi) ** 2)


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


def folded(text: object, length: int, start: int | None = None) -> str:
    """Return a text for a picture that is no longer than this: the end, which tells layers apart, keeps more than the start."""
    shown = escaped(str(text))
    if len(shown) > length:
        start = (length - 3) // 4 if start is None else start
        shown = f"{shown[:start]}...{shown[start + 3 - length :]}"
    return plotted(shown, max(length, len(shown)))


def folded_apart(names: Sequence[str], length: int) -> list[str]:
    """Return folded names, with as much of their start as tells them apart, such as the number of the block."""
    found: list[list[str]] = []
    first = max(1, (length - 3) // 4)
    for start in range(first, max(first + 1, length - 3 - TERSE)):
        found.append([folded(name, length, start) for name in names])
        if len(set(found[-1])) == len(set(names)):
            return found[-1]
    return max(found, key=lambda shown: len(set(shown)))


def short_names(names: Iterable[str], length: int = 30) -> list[str]:
    """Return names for a picture, without the components that nearly all begin with, and folded."""
    full = list(names)
    short = full
    while True:
        firsts = [name.partition(".") for name in short]
        first, count = (
            Counter(part[0] for part in firsts if part[2]).most_common(1)[0] if any(p[2] for p in firsts) else ("", 0)
        )
        # the last shared component stays, since it says what the number behind it counts
        cut = [rest if head == first and "." in rest and not rest[0].isdigit() else name
               for name, (head, _, rest) in zip(short, firsts, strict=True)]  # fmt: skip
        if count < max(2, NEARLY_ALL * len(short)) or cut == short or len(set(cut)) < len(set(full)):
            return folded_apart(short, length)
        short = cut


def end_names(names: Iterable[str], length: int = 14) -> list[str]:
    """Return the shortest ends that tell names apart, without the last word if all share it, and folded."""
    parts = [name.split(".") for name in names]
    size = next((k for k in range(1, max(map(len, parts)) + 1) if len({tuple(p[-k:]) for p in parts}) == len(parts)), 9)
    ends = [".".join(part[-size:]) for part in parts]
    cut = [end.rpartition("_") for end in ends]
    if len(ends) > 1 and len({last for _, _, last in cut}) == 1 and all(head for head, _, _ in cut):
        ends = [head for head, _, _ in cut]
    longer = [".".join(part[-size - 1 :]) for part in parts]
    ends = [more if len(end) <= TERSE and len(more) <= length else end for end, more in zip(ends, longer, strict=True)]
    return folded_apart(ends, length)
