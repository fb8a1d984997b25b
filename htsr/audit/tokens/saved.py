"""Named directions as JSON knows them, and back."""

from collections.abc import Mapping
from typing import Any

from htsr.audit.tokens.directions import Directions
from htsr.audit.tokens.table import COLUMNS, directions_frame

KINDS = {"int64": int, "float64": (int, float), "str": str, "bool": bool}


def tokens_document(layers: Mapping[str, Directions]) -> dict[str, Any]:
    """Return the named directions of layers, nothing if none were asked for."""
    asked = max((directions.asked for directions in layers.values()), default=0)
    if not asked:
        return {}
    named = {
        name: [list(row) for row in directions.kept.astype("object").itertuples(index=False)]
        for name, directions in layers.items()
        if len(directions.kept)
    }
    return {"tokens": {"asked": asked, "columns": list(COLUMNS), "layers": named}}


def tokens_from(document: Mapping[str, Any]) -> dict[str, Directions]:
    """Return what ``tokens_document`` took apart; raise KeyError, TypeError or ValueError if it cannot be that."""
    tokens = document.get("tokens")
    if tokens is None:
        return {}
    asked, columns = tokens["asked"], tokens["columns"]
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise TypeError(f"expected a number of directions, got {asked!r:.50}")
    found = {}
    for name, rows in tokens["layers"].items():
        cells = [dict(zip(columns, row, strict=True)) for row in rows]
        found[name] = Directions(kept=directions_frame([[_cell(row, of) for of in COLUMNS] for row in cells]), asked=asked)
    return found


def _cell(row: Mapping[str, object], name: str) -> object:
    """Return a cell, whose type must be that of its column."""
    value = row[name]
    kind = KINDS[COLUMNS[name]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {COLUMNS[name]} for {name}, got {value!r:.50}")
    return value
