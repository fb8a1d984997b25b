"""Panels of a metric by depth: where each layer's point, interval and band of noise stand."""

from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from htsr.plots.models.depth import PANELS, depth_table
from htsr.report.page.pictures import numbers

# An axis is logarithmic if its values span more than this factor.
WIDE = 4.0
# Layers of one role in one block stand so far apart, in blocks.
APART = 0.18


def depth_of(details: pd.DataFrame, column: str) -> dict[str, Any] | None:
    """Return one panel for each role, and the range of the axis that they share; None if no layer has a value."""
    own = details.reset_index(drop=True)
    if not np.isfinite(own.loc[own["tied_to"] == "", column].astype("float64")).any():
        return None
    table = depth_table(own, column)
    table = table[np.isfinite(table["value"])].replace({"role": {"head": "other"}})
    position = {name: row for row, name in enumerate(own["name"])}
    ends = table[["value", "low", "high", "null_low", "null_high"]].to_numpy()
    least, most = np.nanmin(ends), np.nanmax(ends)
    log = bool(least > 0 and most > WIDE * least)
    room = (least / 1.15, most * 1.15) if log else (least - 0.05 * (most - least), most + 0.05 * (most - least))
    blocks = int(table["block"].max()) + 1
    panels = []
    for role, rows in groupby(
        sorted(table.to_dict("records"), key=lambda r: PANELS.index(r["role"])), key=lambda r: r["role"]
    ):
        members = list(rows)
        inside = any(row["block"] >= 0 for row in members)
        panels.append(
            {
                "role": role,
                "inside": inside,
                "rows": [position[row["name"]] for row in members],
                "x": _across([row["block"] for row in members], blocks if inside else 0),
                "low": numbers(row["low"] for row in members),
                "high": numbers(row["high"] for row in members),
                "noise": [numbers((row["null_low"], row["null_high"])) for row in members],
            }
        )
    return {"log": log, "range": numbers(room), "blocks": blocks, "panels": panels}


def _across(blocks: list[int], start: int) -> list[float]:
    """Return where the points of a panel stand: at their block, side by side within one; layers outside come behind."""
    seen: dict[int, int] = {}
    places = []
    for block in blocks:
        if block < 0:
            block, start = start, start + 1
        places.append(round(block + APART * seen.get(block, 0), 2))
        seen[block] = seen.get(block, 0) + 1
    return places
