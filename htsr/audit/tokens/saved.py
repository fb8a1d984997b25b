"""Named directions as JSON knows them, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from htsr.audit.tokens.directions import Directions
from htsr.audit.tokens.table import COLUMNS, directions_frame

R = TypeVar("R")
KINDS: dict[str, Any] = {"int64": int, "float64": (int, float), "str": str, "bool": bool}


def tokens_document(layers: Mapping[str, Directions]) -> dict[str, Any]:
    """Return the named directions of layers, nothing if none were asked for."""
    named = {
        name: [list(row) for row in directions.kept.astype("object").itertuples(index=False)]
        for name, directions in layers.items()
        if directions.kept is not None
    }
    asked = max((directions.asked for directions in layers.values()), default=0)
    return {"tokens": {"asked": asked, "columns": list(COLUMNS), "layers": named}} if named else {}


def with_kept(results: dict[str, R], document: Mapping[str, Any]) -> dict[str, R]:
    """Return layers' results with the named directions of a document.

    Raise KeyError, TypeError or ValueError if they are not what ``tokens_document`` wrote.
    """
    tokens = document.get("tokens")
    if tokens is None:
        return results
    asked, columns = tokens["asked"], tokens["columns"]
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise TypeError(f"expected a number of directions, got {asked!r:.50}")
    kept = {}
    for name, rows in tokens["layers"].items():
        cells = [dict(zip(columns, row, strict=True)) for row in rows]
        table = directions_frame([[_cell(row, of) for of in COLUMNS] for row in cells])
        kept[name] = replace(results[name], _directions=Directions(kept=table, asked=asked))  # type: ignore[type-var]
    return results | kept


def _cell(row: Mapping[str, object], name: str) -> object:
    """Return a cell, whose type must be that of its column."""
    value = row[name]
    kind = KINDS[COLUMNS[name]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {COLUMNS[name]} for {name}, got {value!r:.50}")
    return value
