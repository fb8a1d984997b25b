"""Tables: the rows of many captures, as columns.

Opening ten thousand small files takes half a minute, so the writer keeps their rows once more, a hundred captures to a
Parquet file. A table only repeats what the captures say, so nothing is lost if it is. It names the captures that it was made
from, with their sizes; a reader reads any capture itself whose size differs.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from htsr.audit.columns import HISTORY_COLUMNS
from htsr.audit.table import details_frame
from htsr.files import written_aside
from htsr.training.store.capture import DAMAGE, WEIGHTS, Capture
from htsr.training.store.files import CAPTURES, TABLES, capture_step, table_name

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
        """Return the description of the table in a file."""
        about = json.loads(pq.read_metadata(path).metadata[_KEY])
        return cls(path, about["parts"], about["captures"])

    def rows(self, columns: Sequence[str] | None) -> pa.Table:
        """Return the rows, or some of their columns."""
        return pq.ParquetFile(self.path).read(columns=columns, use_threads=False)


def rows_frame(captures: Sequence[Capture]) -> pd.DataFrame:
    """Return the rows of captures, one below the other, with the columns of ``History.details``."""
    rows = [{"quantity": WEIGHTS, **row, "step": capture.step} for capture in captures for row in capture.rows]
    return details_frame(rows, HISTORY_COLUMNS)


def write_table(run_dir: Path, parts: dict[str, int], captures: Sequence[Capture]) -> Path:
    """Write the rows of captures, steps ascending, as a table, with the size of each capture's file; return its path."""
    about = {
        "parts": parts,
        "captures": [
            {"step": c.step, "seconds": c.seconds, "analysis_seconds": c.analysis_seconds, "groups": c.groups}
            for c in captures
        ],
    }
    rows = pa.Table.from_pandas(rows_frame(captures), preserve_index=False)
    rows = rows.replace_schema_metadata({**rows.schema.metadata, _KEY: json.dumps(about).encode()})
    path = run_dir / TABLES / table_name(captures[0].step, captures[-1].step)
    path.parent.mkdir(exist_ok=True)
    with written_aside(path) as file:
        pq.write_table(rows, file, compression="lz4")
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
                logger.warning("%s is damaged and left out (%s: %s)", path, type(err).__name__, err)
        if captures:
            write_table(run_dir, parts, captures)
    return saved


def forget_tables(run_dir: Path, from_step: int) -> None:
    """Delete the tables with captures of a step or later ones; the captures themselves stay."""
    for path in (run_dir / TABLES).glob("rows-*.parquet"):
        if int(path.stem.split("-")[2]) >= from_step:
            path.unlink(missing_ok=True)


def untabled(run_dir: Path) -> list[str]:
    """Return the names of the captures that no table holds, steps ascending."""
    held = {name for path in (run_dir / TABLES).glob("rows-*.parquet") for name in Table.open(path).parts}
    names = [path.name for path in (run_dir / CAPTURES).glob("step-*.npz")]
    return sorted((name for name in names if name not in held), key=capture_step)
