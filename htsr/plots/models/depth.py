"""A metric against depth, one panel for each role in a block."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from htsr.p_values import P_VALUES, PValue
from htsr.plots.models.places import by_depth, places
from htsr.plots.style import (
    BLUE,
    GREY,
    MARKERS,
    NORMAL,
    SMALL,
    ManyAxes,
    axes_for,
    category_styles,
    end_names,
    label_axes,
    put_legend,
    room,
    short_names,
    span,
)  # fmt: skip
from htsr.plots.ticks import log_axis
from htsr.text import plotted

# Panels come in this order: along the way of the data through a block.
PANELS = ("embedding", "q", "k", "v", "kv", "qkv", "o", "router", "gate", "up", "down", "conv", "other")
# A picture without panels names its layers if there are no more than this.
MAX_NAMED = 60
# A panel of a figure of its own, in inches, and how many stand side by side.
PANEL, ACROSS = (2.4, 1.9), 4
# The mark of a p-value that the method cannot tell from a smaller one.
BOUND = "v"
# Columns that WeightWatcher's bounds are meant for.
ALPHAS = ("alpha", "alpha_a", "alpha_b")
# The axis is logarithmic if an alpha, or another metric in medians over the layers, is larger than this.
FAR_ALPHA, FAR = 10.0, 20.0


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
    table = table.iloc[by_depth(found)].reset_index(drop=True)
    table.attrs["interval"] = bool(cells(f"{column}_low").notna().any())
    return table


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
    p_value = _p_value(column)
    table["is_bound"] = (table["value"] <= p_value.floor * (1 + 1e-9)) if p_value else False
    missing = int((~np.isfinite(table["value"])).sum())
    roles = _roles(table)
    repeated = table[table["block"] >= 0].groupby("role")["block"].nunique()
    in_blocks = bool((repeated.drop(["conv", "other"], errors="ignore") > 1).any())
    if isinstance(ax, Axes) or not in_blocks:
        axes = axes_for(ax, width=7 if in_blocks else float(np.clip(0.2 * len(table), 6.4, 12)), height=3.6)[0]
        draw = _all_roles if in_blocks else _by_name
        draw(axes[0], table)
        handles = axes[0].get_legend_handles_labels()[0]
    else:
        axes = _panels(ax, table, roles)
        handles = []
    _scale(axes, table, column)
    if missing:
        text = f"{missing} of {len(table)} layers: no {plotted(column)}"
        handles = [*handles, Line2D([], [], linestyle="none", label=text)]
    put_legend(axes, [*handles, *_key(table, column)], own=ax is None, crowded=len(axes) > 1 or in_blocks)
    return axes


def _p_value(column: str) -> PValue | None:
    """Return what kind of p-value a column holds, if its method has a least value above zero."""
    p_value = P_VALUES.get(column.removesuffix("_of_delta"))
    return p_value if p_value is not None and p_value.floor > 0 else None


def _roles(table: pd.DataFrame) -> list[str]:
    """Return the roles of which a layer has a value, in the order of their panels."""
    with_value = set(table["role"][np.isfinite(table["value"])])
    return [role for role in PANELS if role in with_value]


def _panels(ax: ManyAxes | None, table: pd.DataFrame, roles: list[str]) -> np.ndarray:
    """Draw a panel for each role, and return the axes."""
    if ax is None:
        across = min(ACROSS, len(roles))
        down = -(-len(roles) // across)
        grid = axes_for(None, down, across, width=across * PANEL[0] + 0.4, height=down * PANEL[1] + 0.5, sharey=True)
        for unused in grid.flat[len(roles) :]:
            unused.set_visible(False)
        axes = grid.ravel()[: len(roles)]
    else:
        axes = axes_for(ax, 1, len(roles), width=1, height=1)[0]
    blocks = table["block"].max() + 1
    for panel, role in zip(axes, roles, strict=True):
        group = table[table["role"] == role]
        inside, outside = group[group["block"] >= 0], group[group["block"] < 0]
        start = blocks if len(inside) else 0
        at = np.concatenate([inside["block"] + _apart(inside["block"]), np.arange(len(outside)) + start])
        width = 0.8 / (inside["block"].value_counts().max() if len(inside) else 1)
        _draw(panel, at, pd.concat([inside, outside]), width, color=BLUE, marker="o")
        panel.set_xlim(-0.6, (blocks + len(outside) if len(inside) else len(outside)) - 0.4)
        panel.set_title(role, fontsize=NORMAL + 1, loc="left")
        if len(inside):
            _number_blocks(panel, blocks, outside=len(outside))
            label_axes(panel, "block")
        else:
            _name(panel, at, end_names(outside["name"]))
    return axes


def _all_roles(ax: Axes, table: pd.DataFrame) -> None:
    """Draw all roles against the block on one axes, in different colours; embeddings stand before, the rest behind."""
    blocks = int(table["block"].max()) + 1
    away = 1 + blocks // 20
    place = table["block"].where(table["block"] >= 0, np.where(table["role"] == "embedding", -away, blocks - 1 + away))
    by_block = table.groupby(place)
    low, high = by_block["null_low"].min(), by_block["null_high"].max()
    ax.bar(low.index, high - low, 0.9, bottom=low, color=GREY, alpha=0.25, linewidth=0, zorder=1)
    roles = _roles(table)
    for number, (role, style) in enumerate(zip(roles, category_styles(len(roles)), strict=True)):
        group = table[table["role"] == role]
        beside = _apart(place[group.index])
        at = place[group.index] + np.where(beside != 0, beside, ((number + 0.5) / len(roles) - 0.5) * 0.7)
        bare = group.assign(null_low=np.nan, null_high=np.nan)
        _draw(ax, at.to_numpy(), bare, 0, color=style["color"], marker=MARKERS[number % len(MARKERS)], label=role)
    _number_blocks(ax, blocks)
    ends = [(end, word) for end, word in ((-away, "in"), (blocks - 1 + away, "out")) if (place == end).any()]
    ax.set_xticks([*ax.get_xticks(), *(end for end, _ in ends)], [*_texts(ax), *(word for _, word in ends)])
    ax.set_xlim(place.min() - 0.6, place.max() + 0.6)
    label_axes(ax, "block")


def _by_name(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the layers side by side, in the order of the table, with their names."""
    at = np.arange(len(table))
    _draw(ax, at, table, 0.8, color=BLUE, marker="o")
    ax.set_xlim(-0.6, len(table) - 0.4)
    if len(table) <= MAX_NAMED:
        _name(ax, at, short_names(table["name"], 26))
    else:
        label_axes(ax, "layer, by depth")


def _draw(ax: Axes, at: np.ndarray, rows: pd.DataFrame, width: float, **style: Any) -> None:
    """Draw noise, intervals and values of some layers."""
    ax.use_sticky_edges = False  # a bar at the upper end would take the margin from the axis
    ax.bar(at, rows["null_high"] - rows["null_low"], width, bottom=rows["null_low"], color=GREY, alpha=0.3, zorder=1)
    flat = (rows["null_high"] == rows["null_low"]).to_numpy()
    ax.hlines(rows["null_low"][flat], at[flat] - width / 2, at[flat] + width / 2, color=GREY, linewidth=1.2, zorder=1)
    ax.vlines(at, rows["low"], rows["high"], color=style["color"], linewidth=0.9, alpha=0.8)
    bound = rows["is_bound"].to_numpy()
    ax.plot(at[~bound], rows["value"][~bound], linestyle="none", markersize=3.5, **style)
    if bound.any():
        ax.plot(at[bound], rows["value"][bound], BOUND, color=style["color"], markersize=4, markerfacecolor="none")


def _apart(blocks: pd.Series) -> pd.Series:
    """Return how far to move each of several layers with one role in one block, such as experts."""
    groups = blocks.groupby(blocks)
    count, number = groups.transform("size"), groups.cumcount()
    return (number - (count - 1) / 2) * 0.6 / count


def _number_blocks(ax: Axes, blocks: int, *, outside: int = 0) -> None:
    """Number as many blocks as fit, and mark layers behind them."""
    fitting = max(2, int(room(ax, NORMAL) / (len(str(blocks)) + 2.5)))
    stride = next(s for s in (1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 50, 100, 10**9) if blocks / s <= fitting)
    ticks = list(range(0, blocks, stride))
    ax.set_xticks([*ticks, *range(blocks, blocks + outside)], [*map(str, ticks), *["out"] * outside])


def _texts(ax: Axes) -> list[str]:
    """Return the texts of the ticks."""
    return [label.get_text() for label in ax.get_xticklabels()]


def _name(ax: Axes, at: np.ndarray, names: list[str]) -> None:
    """Write names below the axes: lying if they fit beside each other, else upright."""
    fits = (max(map(len, names)) + 1) * len(names) < room(ax, SMALL - 1)
    ax.set_xticks(at, names, rotation=0 if fits else 90, fontsize=SMALL - 1)


def _scale(axes: np.ndarray, table: pd.DataFrame, column: str) -> None:
    """Give all panels one scale and one name, and draw the bounds of alpha."""
    finite = table["value"][np.isfinite(table["value"])]
    tallest, lowest = finite.max(), finite.min()
    alpha = column in ALPHAS
    logarithmic = lowest > 0 and (
        _p_value(column) is not None or tallest > (FAR_ALPHA if alpha else FAR * finite.median())
    )
    for number, ax in enumerate(axes):
        if alpha:
            span(ax, 2, 6)
        if logarithmic:
            log_axis(ax, "y")
        # an interval, or noise of an odd shape, may reach far; the values must stay readable
        if alpha and logarithmic:
            ax.set_ylim(max(1, 0.85 * lowest), 1.3 * tallest)
        elif alpha:
            highest = np.nanmax([*table["high"], *table["null_high"], tallest])
            ax.set_ylim(0, min(1.05 * highest, 1.6 * tallest))
        elif _p_value(column) is not None:
            ax.set_ylim(0.4 * lowest, 2)
        grid = ax.get_subplotspec()
        if len(axes) == 1 or grid is None or grid.is_first_col() or number == 0:
            label_axes(ax, y=plotted(column))


def _key(table: pd.DataFrame, column: str) -> list[Line2D | Patch]:
    """Return what explains the marks that all panels share."""
    key: list[Line2D | Patch] = []
    if (table["null_high"] > table["null_low"]).any():
        key.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="90 % of noise"))
    elif table["null_low"].notna().any():
        key.append(Line2D([], [], color=GREY, linewidth=1.2, label="noise, median"))
    if table["low"].notna().any():
        bars = "95 % interval" if table.attrs["interval"] else "± sigma"
        key.append(Line2D([], [], color=GREY, linewidth=0.9, marker="o", markersize=3.5, label=bars))
    p_value = _p_value(column)
    if p_value is not None and table["is_bound"].any():
        label = f"< {p_value.bound}"
        key.append(Line2D([], [], color=GREY, linestyle="none", marker=BOUND, markerfacecolor="none", label=label))
    if column in ALPHAS:
        key.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="2 and 6"))
    return key
