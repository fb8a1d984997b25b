"""Rows: every place that makes one finishes it here, so that each has every column of its table, in order."""

from collections.abc import Mapping, Sequence
from typing import Any

from htsr.audit.columns import COLUMNS, COMPARISON_COLUMNS, HISTORY_COLUMNS, OF_DELTA, OF_EACH, OF_LAYER, STEP, Column
from htsr.weights import Layer

Row = dict[str, Any]


def finished(cells: Mapping[str, object], columns: Sequence[Column] = COLUMNS) -> Row:
    """Return a row with every column, in order, where a missing number is NaN and a missing text is empty."""
    row: Row = {column.name: column.missing for column in columns}
    assert cells.keys() <= row.keys(), f"no such column: {', '.join(cells.keys() - row.keys())}"
    return row | {name: value for name, value in cells.items() if value is not None}


def known_cells(row: Mapping[str, object]) -> Row:
    """Return the cells of a row that are not NaN, which JSON does not have; ``finished`` puts the others back."""
    return {name: value for name, value in row.items() if value == value}


def tied_row(row: Row, layer: Layer) -> Row:
    """Return the row of a layer that shares its weight with the layer of ``row``: the numbers repeat under its own name."""
    own = {"name": layer.name, "longname": layer.longname, "layer_type": layer.layer_type, "tied_to": layer.tied_to}
    return {name: own.get(name, value) for name, value in row.items()}


def comparison_row(a: Row, b: Row, delta: Row, cells: Mapping[str, object]) -> Row:
    """Return the row of a comparison from the rows of A, of B and of the change, and the cells measured on both weights."""
    taken = {name: a[name] for name in OF_LAYER}
    for side, row, names in (("a", a, OF_EACH), ("b", b, OF_EACH), ("of_delta", delta, OF_DELTA)):
        taken |= {f"{name}_{side}": row[name] for name in names}
    return finished({**taken, **cells}, COMPARISON_COLUMNS)


def captured_row(row: Row, quantity: str) -> Row:
    """Return a row of ``analyze`` as a Monitor keeps it, with the quantity that was captured and room for distances."""
    return finished(row | {"quantity": quantity}, [column for column in HISTORY_COLUMNS if column != STEP])


def with_distances(row: Row, distances: Mapping[str, Mapping[str, float]]) -> Row:
    """Return a captured row of weights with how far the step moved its layer, given by name; other rows as they are."""
    if row["quantity"] != "weights":
        return row
    return {**row, **distances.get(row["tied_to"] or row["name"], {})}


def with_step(row: Row, steps: Mapping[str, Mapping[str, object]]) -> Row:
    """Return a captured row of weights or updates with what the step was, given by the layer's name; other rows as they are."""
    if row["quantity"] not in ("weights", "updates"):
        return row
    return {**row, **steps.get(row["tied_to"] or row["name"], {})}
