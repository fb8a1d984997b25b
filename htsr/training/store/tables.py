"""Tables: the rows of many captures, as columns.

Opening ten thousand small files takes half a minute, so the writer keeps their rows once more, a hundred captures to a
Parquet file. A table only repeats what the captures say, so nothing is lost if it is. It names the captures that it was made
from, with their sizes; a reader reads any capture itself whose size differs. A table counts only if its seal fits, each time it
is read; readers take the rows of the captures instead, and the next writer of the run makes it anew.

Without pyarrow nobody reads or writes tables, and readers take the rows of every capture.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from htsr.audit.columns import BY_NAME, HISTORY_COLUMNS
from htsr.audit.table import details_frame
from htsr.files import parquet_available, read_regular, seal, unseal, written_aside
from htsr.training.store.capture import WEIGHTS, Capture, checked_header
from htsr.training.store.files import CAPTURES, DAMAGE, TABLES, DamageError, capture_name, capture_step, table_name

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Captures in a table. With fewer, readers open more tables; with more, they read more captures one by one. At 50 layers,
# reading a capture takes about 2 ms and a table about 5 ms.
CAPTURES_PER_TABLE = 100
_KEY = b"htsr"


@dataclass(frozen=True)
class Table:
    """The description of a table."""

    path: Path
    parts: dict[str, int]  # size in bytes of each capture's file that the table was made from, by name
    captures: list[dict[str, Any]]  # step, seconds, analysis_seconds and groups of each

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Return the description of the table in a file; raise one of ``DAMAGE`` if it is damaged."""
        import pyarrow.parquet as pq

        with _parsing():
            about = json.loads(pq.read_metadata(_content(path)).metadata[_KEY])
            parts, captures = about["parts"], [checked_header(header) for header in about["captures"]]
            if sorted(parts) != [capture_name(header["step"]) for header in captures]:
                raise DamageError("expected a header for each capture")
            return cls(path, parts, captures)

    def rows(self, columns: Sequence[str]) -> "pa.Table":
        """Return these columns of the rows, as far as the table has them; raise one of ``DAMAGE`` if it is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _parsing():
            held = pq.ParquetFile(_content(self.path)).read(columns=list(columns), use_threads=False)
            # Other versions of pandas write texts as another type.
            held = held.cast(pa.schema([_types().field(name) for name in held.column_names]))
            whole = [name for name in columns if BY_NAME[name].dtype == "int64"]
            if any(name not in held.column_names or held[name].null_count for name in whole):
                raise DamageError(f"expected a value in each cell of {', '.join(whole)}")
            return held


@lru_cache(maxsize=1)
def _types() -> "pa.Schema":
    """Return the type of each column in a table."""
    import pyarrow as pa

    return pa.Schema.from_pandas(rows_frame([]), preserve_index=False).remove_metadata()


def _content(path: Path) -> "pa.BufferReader":
    """Return what is sealed in the file of a table."""
    import pyarrow as pa

    return pa.BufferReader(unseal(read_regular(path), path.name))


@contextmanager
def _parsing() -> Iterator[None]:
    """Turn whatever a parser raises into ``DamageError``."""
    try:
        yield
    except DAMAGE:
        raise
    except Exception as err:  # a file that is damaged or made to deceive makes pyarrow, pandas and json raise anything
        raise DamageError.of(err) from err


def tables_frame(tables: "Sequence[pa.Table]") -> pd.DataFrame:
    """Return the rows of tables, one below the other."""
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="default").to_pandas()


def rows_frame(captures: Sequence[Capture]) -> pd.DataFrame:
    """Return the rows of captures, one below the other, with the columns of ``History.details``."""
    rows = [{"quantity": WEIGHTS, **row, "step": capture.step} for capture in captures for row in capture.rows]
    return details_frame(rows, HISTORY_COLUMNS)


def write_table(run_dir: Path, parts: dict[str, int], captures: Sequence[Capture]) -> Path:
    """Write the rows of captures, steps ascending, as a table, with the size of each capture's file; return its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"parts": parts, "captures": [capture.header for capture in captures]}
    rows = pa.Table.from_pandas(rows_frame(captures), preserve_index=False)
    rows = rows.replace_schema_metadata({**rows.schema.metadata, _KEY: json.dumps(about).encode()})
    path = run_dir / TABLES / table_name(captures[0].step, captures[-1].step)
    path.parent.mkdir(exist_ok=True)
    content = pa.BufferOutputStream()
    pq.write_table(rows, content, compression="lz4")
    with written_aside(path) as file:
        file.write(seal(content.getvalue().to_pybytes(), path.name))
    return path


def consolidate(run_dir: Path, saved: Sequence[str]) -> list[str]:
    """Write tables of the captures in ``saved``, steps ascending, as far as they fill tables; return the names left over."""
    saved = list(saved)
    while parquet_available() and len(saved) >= CAPTURES_PER_TABLE:
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
    for path in (run_dir / TABLES).glob("rows-*.parquet"):
        if int(path.stem.split("-")[2]) >= from_step:
            path.unlink(missing_ok=True)


def _table_paths(run_dir: Path) -> list[Path]:
    """Return the files of the tables that can be read, steps ascending: none without pyarrow."""
    return sorted((run_dir / TABLES).glob("rows-*.parquet")) if parquet_available() else []


def drop_damaged_tables(run_dir: Path) -> list[str]:
    """Delete the tables that are damaged, so that they are made anew, and return what is wrong with each."""
    problems = []
    for path in _table_paths(run_dir):
        try:
            Table.open(path)
        except DAMAGE as err:
            problems.append(f"{path.name}: {err}")
            path.unlink(missing_ok=True)
    return problems


def untabled(run_dir: Path) -> list[str]:
    """Return the names of the captures that no table holds, steps ascending."""
    held = {name for path in _table_paths(run_dir) for name in Table.open(path).parts}
    names = [path.name for path in (run_dir / CAPTURES).glob("step-*.npz")]
    return sorted((name for name in names if name not in held), key=capture_step)
