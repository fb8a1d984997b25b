"""Tables: the rows of many captures, as columns.

Opening ten thousand small files takes a minute, so the writer keeps their rows once more, a hundred captures to an npz file. It
has one array for each column, so that readers load those that they want. A table only repeats what the captures say, so nothing
is lost if it is. It names the captures that it was made from, with their sizes; a reader reads any capture itself whose size
differs. A table counts only if its seal fits, each time it is read; readers take the rows of the captures instead, and the next
writer of the run makes it anew.
"""

import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from htsr.audit.columns import BY_NAME, HISTORY_COLUMNS
from htsr.audit.table import details_frame
from htsr.files import read_regular, seal, unseal, written_aside
from htsr.training.store.capture import WEIGHTS, Capture, checked_header, stored_arrays
from htsr.training.store.files import CAPTURES, DAMAGE, TABLES, DamageError, capture_name, capture_step, table_name

logger = logging.getLogger(__name__)

# Captures in a table. With fewer, readers open more tables; with more, they read more captures one by one. At 50 layers,
# reading a capture takes about 2 ms and a table about 5 ms.
CAPTURES_PER_TABLE = 100
# What stands in a table for a count that is missing; no row can hold it (``LARGEST``).
_MISSING = -(2**63)
# Types of the arrays. A text is its place among the texts of its column.
_STORED = {"float64": np.float64, "int64": np.int64, "Int64": np.int64, "str": np.int32}


@dataclass(frozen=True)
class Table:
    """The description of a table."""

    path: Path
    parts: dict[str, int]  # size in bytes of each capture's file that the table was made from, by name
    captures: list[dict[str, Any]]  # step, seconds, analysis_seconds and groups of each

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Return the description of the table in a file; raise one of ``DAMAGE`` if it is damaged."""
        with _parsing():
            about = _about(stored_arrays(_content(path)))
            parts, captures = about["parts"], [checked_header(header) for header in about["captures"]]
            if sorted(parts) != [capture_name(header["step"]) for header in captures]:
                raise DamageError("expected a header for each capture")
            return cls(path, parts, captures)

    def rows(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return these columns of the rows, as far as the table has them; raise one of ``DAMAGE`` if it is damaged."""
        with _parsing():
            arrays = stored_arrays(_content(self.path))
            texts, size = _about(arrays)["texts"], len(arrays["step"])
            held = [name for name in columns if name in arrays.files]
            if any(name not in held for name in columns if BY_NAME[name].dtype == "int64"):
                raise DamageError("expected every column that no row lacks")
            return pd.DataFrame({name: _unpacked(arrays[name], texts, name, size) for name in held})


def _content(path: Path) -> bytes:
    """Return what is sealed in the file of a table."""
    return unseal(read_regular(path), path.name)


def _about(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the description in a table."""
    return json.loads(arrays["about"].tobytes())


def _packed(values: pd.Series, texts: dict[str, list[str]]) -> np.ndarray:
    """Return a column as an array, of one element if all are equal, and put its texts, each once, into ``texts``."""
    name, dtype = str(values.name), BY_NAME[str(values.name)].dtype
    if dtype == "str":
        places, known = pd.factorize(values)
        array, texts[name] = places.astype(_STORED[dtype]), list(known)
    elif dtype == "Int64":
        array = values.to_numpy(_STORED[dtype], na_value=_MISSING)
    else:
        array = values.to_numpy(_STORED[dtype])
    bits = array.view(f"i{array.itemsize}")  # NaN equals itself in them
    return array[:1] if name != "step" and len(array) and (bits == bits[0]).all() else array


def _unpacked(array: np.ndarray, texts: Mapping[str, list[str]], name: str, size: int) -> Any:
    """Return the column of so many rows that ``_packed`` got, or raise ``DamageError`` if it has other types."""
    dtype = BY_NAME[name].dtype
    if array.dtype != _STORED[dtype] or array.shape not in ((1,), (size,)):
        raise DamageError(f"expected an array of {size} {_STORED[dtype].__name__} for {name}")
    array = np.broadcast_to(array, size)
    if dtype == "str":
        known = texts[name]
        if not all(isinstance(text, str) for text in known) or (
            size and not 0 <= array.min() <= array.max() < len(known)
        ):
            raise DamageError(f"expected a text in each cell of {name}")
        return pd.array(known, dtype=dtype).take(array)
    if dtype == "Int64":
        missing = array == _MISSING
        return pd.arrays.IntegerArray(np.where(missing, 1, array), missing)
    return array


@contextmanager
def _parsing() -> Iterator[None]:
    """Turn whatever a parser raises into ``DamageError``."""
    try:
        yield
    except DAMAGE:
        raise
    except Exception as err:  # a file that is damaged or made to deceive makes zipfile, numpy and json raise anything
        raise DamageError.of(err) from err


def rows_frame(captures: Sequence[Capture]) -> pd.DataFrame:
    """Return the rows of captures, one below the other, with the columns of ``History.details``."""
    rows = [{"quantity": WEIGHTS, **row, "step": capture.step} for capture in captures for row in capture.rows]
    return details_frame(rows, HISTORY_COLUMNS)


def write_table(run_dir: Path, parts: dict[str, int], captures: Sequence[Capture]) -> Path:
    """Write the rows of captures, steps ascending, as a table, with the size of each capture's file; return its path."""
    texts: dict[str, list[str]] = {}
    rows = rows_frame(captures)
    arrays: dict[str, Any] = {name: _packed(rows[name], texts) for name in rows}
    about = {"parts": parts, "captures": [capture.header for capture in captures], "texts": texts}
    content = io.BytesIO()
    np.savez(content, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **arrays)
    path = run_dir / TABLES / table_name(captures[0].step, captures[-1].step)
    path.parent.mkdir(exist_ok=True)
    with written_aside(path) as file:
        file.write(seal(content.getvalue(), path.name))
    return path


def consolidate(run_dir: Path, saved: Sequence[str]) -> list[str]:
    """Write tables of the captures in ``saved``, steps ascending, as far as they fill tables; return the names left over."""
    saved = list(saved)
    while len(saved) >= CAPTURES_PER_TABLE:
        names, saved = saved[:CAPTURES_PER_TABLE], saved[CAPTURES_PER_TABLE:]
        parts, captures = {}, []
        for name in names:
            path = run_dir / CAPTURES / name
            try:
                captures.append(Capture.load(path))
                parts[name] = path.stat().st_size
            except DAMAGE as err:
                logger.warning("%s is damaged and left out (%s)", path, err)
        if captures:
            write_table(run_dir, parts, captures)
    return saved


def forget_tables(run_dir: Path, from_step: int) -> None:
    """Delete the tables with captures of a step or later ones; the captures themselves stay."""
    for path in (run_dir / TABLES).glob("rows-*.npz"):
        if int(path.stem.split("-")[2]) >= from_step:
            path.unlink(missing_ok=True)


def drop_damaged_tables(run_dir: Path) -> list[str]:
    """Delete the tables that are damaged, so that they are made anew, and return what is wrong with each."""
    problems = []
    for path in sorted((run_dir / TABLES).glob("rows-*.npz")):
        try:
            Table.open(path)
        except DAMAGE as err:
            problems.append(f"{path.name}: {err}")
            path.unlink(missing_ok=True)
    return problems


def untabled(run_dir: Path) -> list[str]:
    """Return the names of the captures that no table holds, steps ascending."""
    held = {name for path in (run_dir / TABLES).glob("rows-*.npz") for name in Table.open(path).parts}
    names = [path.name for path in (run_dir / CAPTURES).glob("step-*.npz")]
    return sorted((name for name in names if name not in held), key=capture_step)
