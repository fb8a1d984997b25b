"""The phase of every layer, in categorical colours: by role and block, or over the steps of a run."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from htsr.plots.grids import name_columns, name_rows
from htsr.plots.models.depth import PANELS
from htsr.plots.models.places import places
from htsr.plots.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    ManyAxes,
    axes_for,
    end_names,
    label_axes,
    put_legend,
)  # fmt: skip

PHASE_COLOURS = {
    "random-like": "#b8b8b8",
    "bleeding-out": SKY,
    "bulk+spikes": BLUE,
    "bulk-decay": GREEN,
    "heavy-tailed": ORANGE,
    "bulk-decay or heavy-tailed": "#a3a300",
    "rank-collapse": VERMILION,
    "fixed-basis": PURPLE,
    "undecided": "#606060",
}


class PhaseGrid(NamedTuple):
    """Phases in rows and columns.

    Attributes:
        phases: A table of texts, empty where there is no layer or no phase.
        across: What the columns are: block or step.
    """

    phases: pd.DataFrame
    across: str


def phase_grid(details: pd.DataFrame) -> PhaseGrid:
    """Arrange the phases of a table.

    Args:
        details: ``Analysis.details`` or ``History.details``; tied layers, and quantities other than weights, are left out.

    Returns:
        A row a layer and a column a step, for the table of a history. Otherwise a row a role and a column a block; where a
        block holds several layers of a role, such as experts, their most frequent phase. Layers outside the blocks have a row
        each: embeddings above, in the column "in", the others below, in the column "out". All layers of a model without blocks
        have a row in one column.
    """
    own = details[details["tied_to"] == ""]
    if "step" in own:
        own = own[own["quantity"] == "weights"]
        table = own.pivot(index="name", columns="step", values="phase").reindex(list(dict.fromkeys(own["name"])))
        return PhaseGrid(table.fillna(""), "optimizer step")
    at = pd.DataFrame(places(own["name"], own.get("layer_type")), columns=["block", "label", "role"])
    at = at.assign(name=own["name"].to_numpy(), phase=own["phase"].to_numpy())
    repeated = at[at["block"] >= 0].groupby("role")["block"].nunique().drop(["conv", "other"], errors="ignore")
    inside = at[(at["block"] >= 0) & bool((repeated > 1).any())]
    outside = at.drop(inside.index)
    table = inside.pivot_table(
        index="role", columns="block", values="phase", aggfunc=lambda texts: texts.mode().iloc[0]
    )
    table = table.reindex([role for role in (*PANELS, "head") if role in table.index])
    blocks = list(table.columns)
    outside = outside.assign(short=end_names(outside["name"], 24) if len(outside) else [])
    before = outside["role"] == "embedding"
    above, below = (
        pd.DataFrame({end if blocks else 0: rows["phase"].to_numpy()}, index=rows["short"].to_numpy())
        for end, rows in (("in", outside[before]), ("out", outside[~before]))
    )
    ends = [[end] if blocks and len(rows) else [] for end, rows in (("in", above), ("out", below))]
    grid = pd.concat([above, table, below])
    return PhaseGrid(grid[[*ends[0], *(blocks or [0]), *ends[1]]].fillna(""), "block")


def plot_phases(details: pd.DataFrame, *, ax: ManyAxes | None = None) -> Axes:
    """Draw the phase of every layer as a coloured cell.

    Args:
        details: ``Analysis.details``, for roles and blocks, or ``History.details``, for layers and steps.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If no layer has a phase.
    """
    grid = phase_grid(details)
    found = [phase for phase in PHASE_COLOURS if (grid.phases == phase).any(axis=None)]
    if not found:
        raise ValueError("no layer has a phase: analyze with bulk=True")
    numbers = {phase: number for number, phase in enumerate(found)}
    cells = grid.phases.map(lambda phase: numbers.get(phase, np.nan)).to_numpy(dtype=float)
    rows, columns = cells.shape
    axes: Axes = axes_for(
        ax, width=float(np.clip(0.25 * columns + 3.4, 4.5, 9)), height=float(np.clip(0.17 * rows + 1.1, 1.9, 9))
    )[0, 0]
    colours = ListedColormap([PHASE_COLOURS[phase] for phase in found])
    norm = BoundaryNorm(np.arange(len(found) + 1) - 0.5, len(found)) if len(found) > 1 else None
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, cells, cmap=colours, norm=norm, linewidth=0
    )
    axes.grid(False)
    axes.invert_yaxis()
    name_rows(axes, list(map(str, grid.phases.index)))
    name_columns(axes, list(grid.phases.columns))
    label_axes(axes, grid.across if columns > 1 else None)
    handles = [Patch(color=PHASE_COLOURS[phase], label=phase) for phase in found]
    put_legend(axes, handles, own=ax is None, crowded=True)
    return axes
