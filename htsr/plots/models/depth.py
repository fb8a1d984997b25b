"""A metric against depth, one panel for each role in a block."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from htsr.plots.models.places import by_depth, places
from htsr.plots.style import (
    BLUE,
    GREY,
    NORMAL,
    SMALL,
    ManyAxes,
    axes_for,
    category_styles,
    figure_of,
    label_axes,
    put_legend,
    short_names,
    span,
)  # fmt: skip
from htsr.plots.ticks import log_axis
from htsr.text import plotted

# Panels come in this order: along the way of the data through a block.
PANELS = ("embedding", "q", "k", "v", "kv", "qkv", "o", "router", "gate", "up", "down", "conv", "other")
# A picture without panels names its layers if there are no more than this; names outside the blocks are longer in a panel.
MAX_NAMED, MAX_OUTSIDE = 60, 6
# A panel of a figure of its own, in inches, and how many stand side by side.
PANEL, ACROSS = (2.4, 1.9), 4


def depth_table(details: pd.DataFrame, column: str = "alpha") -> pd.DataFrame:
    """Say where each layer stands and how large a metric is there.

    Args:
        details: A table with ``name``, ``tied_to`` and the column: ``Analysis.details``, ``Comparison.details``, the rows of
            one step of ``History.details``. ``layer_type`` helps to tell roles apart. Tied layers are left out.
        column: A numeric column.

    Returns:
        One row a layer, blocks in their natural order (2 before 11), also where the table follows the alphabet: ``name``,
        ``role``, ``block`` (from 0; -1 outside the blocks), ``label`` of the block, ``value``, ``low`` and ``high`` (the 95 %
        interval of alpha, or one sigma each way), ``null_low`` and ``null_high`` (what noise of the shape has; the 5 and 95 %
        quantiles of alpha, the median of other columns).

    Raises:
        ValueError: If the column is not there or not numeric, or no layer has a value.
    """
    numeric = [name for name in details.columns if pd.api.types.is_numeric_dtype(details[name])]
    if column not in numeric:
        raise ValueError(f"expected one of the numeric columns {', '.join(numeric)}, got {column!r}")
    layers = details[details["tied_to"] == ""].reset_index(drop=True)
    value = layers[column].astype("float64")
    if not np.isfinite(value).any():
        raise ValueError(f"no layer has a value of {column}")

    def cells(*names: str) -> pd.Series:
        found = next((layers[name] for name in names if name in layers), pd.Series(np.nan, layers.index))
        return found.astype("float64")

    sigma = cells("sigma") if column == "alpha" else cells()
    found = places(layers["name"], layers.get("layer_type"))
    table = pd.DataFrame(found, columns=["block", "label", "role"])
    table = table.assign(
        name=layers["name"],
        value=value,
        low=cells(f"{column}_low").fillna(value - sigma),
        high=cells(f"{column}_high").fillna(value + sigma),
        null_low=cells(f"null_{column}_low", f"null_{column}"),
        null_high=cells(f"null_{column}_high", f"null_{column}"),
    )
    return table.iloc[by_depth(found)].reset_index(drop=True)


def plot_depth(details: pd.DataFrame, column: str = "alpha", *, ax: ManyAxes | None = None) -> np.ndarray:
    """Draw a metric of each layer against its block, with one panel for each role: q, k, v, o, up, down, embedding, ...

    A model whose layers stand in no blocks has one panel, in which they are named. Alpha has a bar for its 95 % interval where
    there is one, and for one sigma each way where there is none, and lines at 2 and 6. A grey band behind a point shows what
    noise of the layer's shape has.

    Args:
        details: ``Analysis.details`` or another table that ``depth_table`` takes.
        column: A numeric column.
        ax: One axes, for all roles in different colours, or as many as there are panels. A figure of its own by default.

    Returns:
        The axes, one for each panel.

    Raises:
        ValueError: If the column is not there or not numeric, no layer has a value, or ``ax`` holds too few axes.
    """
    table = depth_table(details, column)
    table["role"] = table["role"].replace("head", "other")
    roles = [role for role in PANELS if (table["role"] == role).any()]
    repeated = table[table["block"] >= 0].groupby("role")["block"].nunique()
    in_blocks = bool((repeated.drop(["conv", "other"], errors="ignore") > 1).any())
    one = isinstance(ax, Axes) or not in_blocks
    if one:
        axes = axes_for(ax, width=max(6.4, min(0.2 * len(table), 12)) if not in_blocks else 7, height=3.6)[0]
        _one_panel(axes[0], table, roles, in_blocks)
    else:
        across = min(ACROSS, len(roles))
        down = -(-len(roles) // across)
        if ax is None:
            width, height = across * PANEL[0] + 0.4, down * PANEL[1] + 0.5
            grid = axes_for(None, down, across, width=width, height=height, sharey=True)
            for unused in grid.flat[len(roles) :]:
                unused.set_visible(False)
            axes = grid.ravel()[: len(roles)]
        else:
            axes = axes_for(ax, 1, len(roles), width=1, height=1)[0]
        for panel, role in zip(axes, roles, strict=True):
            _draw(panel, table[table["role"] == role], {"color": BLUE, "marker": "o"}, table["block"].max() + 1)
            panel.set_title(role, fontsize=NORMAL + 1, loc="left")
    _finish(axes, table, column)
    if ax is None and not one:
        figure_of(axes).legend(
            handles=_key(table, column), fontsize=NORMAL, frameon=False, loc="outside upper left", ncols=4
        )
        for panel in axes[[i for i in range(len(axes)) if i % ACROSS]]:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)
        for panel in axes[: len(axes) - across]:
            panel.set_xlabel("")
    else:
        put_legend(axes[0], handles=_key(table, column), ncols=2)
    return axes


def _one_panel(ax: Axes, table: pd.DataFrame, roles: list[str], in_blocks: bool) -> None:
    """Draw all layers on one axes: against the block, or by name."""
    if not in_blocks:
        table = table.assign(block=-1)
        _draw(ax, table, {"color": BLUE, "marker": "o"}, 0)
        return
    blocks = table["block"].max() + 1
    for role, style in zip(roles, category_styles(len(roles)), strict=True):
        group = table[table["role"] == role]
        _draw(ax, group, {"color": style["color"], "marker": style["marker"], "label": role}, blocks, named=False)
    ax.set_xlim(-1.2 if (table["block"] < 0).any() else -0.6, None)


def _draw(ax: Axes, group: pd.DataFrame, style: dict[str, Any], blocks: int, *, named: bool = True) -> None:
    """Draw the layers of one role: noise behind, bars, points; layers outside the blocks stand apart and have names."""
    inside = group[group["block"] >= 0]
    outside = group[group["block"] < 0]
    x = inside["block"] + _apart(inside["block"])
    start = 0 if inside.empty else blocks
    beside = np.arange(len(outside)) + start
    if not named and len(outside):
        beside = np.full(len(outside), -1.0 if (outside["role"] == "embedding").all() else blocks)
        beside = beside + _apart(pd.Series(beside)).to_numpy()
    at = np.concatenate([x, beside])
    rows = pd.concat([inside, outside])
    width = 0.8 / (inside["block"].value_counts().max() if len(inside) else 1)
    ax.bar(at, rows["null_high"] - rows["null_low"], width, bottom=rows["null_low"], color=GREY, alpha=0.3, zorder=1)
    flat = (rows["null_high"] == rows["null_low"]).to_numpy()
    ax.hlines(rows["null_low"][flat], at[flat] - width / 2, at[flat] + width / 2, color=GREY, linewidth=1.2, zorder=1)
    ax.vlines(at, rows["low"], rows["high"], color=style["color"], linewidth=0.9, alpha=0.8)
    ax.plot(at, rows["value"], linestyle="none", markersize=3.5, **style)
    if not named:
        return
    ax.set_xlim(-0.6, max(at.max(), 0 if inside.empty else blocks - 1) + 0.6)
    if len(outside) and len(outside) <= (
        MAX_NAMED if inside.empty and len(outside) == len(group) and blocks == 0 else MAX_OUTSIDE
    ):
        ticks = list(range(0, blocks, max(1, -(-blocks // 4)))) if len(inside) else []
        names = short_names(outside["name"], 22)
        ax.set_xticks([*ticks, *beside], [*map(str, ticks), *names])
        for label in ax.get_xticklabels()[len(ticks) :]:
            label.set(rotation=90 if len(outside) > MAX_OUTSIDE or len(inside) else 20, fontsize=SMALL - 1)
            label.set_horizontalalignment("center" if len(outside) > MAX_OUTSIDE or len(inside) else "right")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _apart(blocks: pd.Series) -> pd.Series:
    """Return how far to move each of several layers with one role in one block, such as experts."""
    groups = blocks.groupby(blocks)
    count, number = groups.transform("size"), groups.cumcount()
    return (number - (count - 1) / 2) * 0.6 / count


def _finish(axes: np.ndarray, table: pd.DataFrame, column: str) -> None:
    """Give all panels one scale, the bounds of alpha, and labels."""
    tallest, lowest = table["value"].max(), table["value"].min()
    finite = table["value"][np.isfinite(table["value"])]
    for ax in axes:
        if column == "alpha":
            span(ax, 2, 6)
            # an interval, or noise of an odd shape, may reach far; the values must stay readable
            highest = np.nanmax([*table["high"], *table["null_high"], tallest])
            ax.set_ylim(0, min(1.05 * highest, 1.6 * tallest))
        elif len(finite) and lowest > 0 and tallest > 20 * finite.median():
            log_axis(ax, "y")
        label_axes(ax, "block" if (table["block"] >= 0).any() else None, plotted(column))


def _key(table: pd.DataFrame, column: str) -> list[Line2D | Patch]:
    """Return what explains the marks that all panels share."""
    key: list[Line2D | Patch] = []
    if (table["null_high"] > table["null_low"]).any():
        key.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="90 % of noise of this shape"))
    elif table["null_low"].notna().any():
        key.append(Line2D([], [], color=GREY, linewidth=1.2, label="noise of this shape"))
    if table["low"].notna().any():
        key.append(Line2D([], [], color=BLUE, linewidth=0.9, marker="o", markersize=3.5, label="value and interval"))
    if column == "alpha":
        key.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="2 and 6"))
    return key
