"""Rows of many captures as columns.

Opening ten thousand small files takes half a minute, so the writer keeps their rows once more, a hundred captures to a
Parquet file. A table repeats what the captures say and may be lost: it names the captures it was made from with their sizes,
and a capture that is not exactly that is read itself.
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

# Captures to a table. Fewer make more files to open, more leave more captures to be read one by one: at 50 layers a capture
# takes about 2 ms, a table about 5.
CAPTURES_PER_TABLE = 100
_KEY = b"htsr"


@dataclass(frozen=True)
class Table:
    """The description of a table.

    Attributes:
        path: Its file.
        parts: Size in bytes of each capture's file that it was made from, by name.
        captures: Step, seconds, analysis_seconds and groups of each.
    """

    path: Path
    parts: dict[str, int]
    captures: list[dict[str, Any]]

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Read the description of a table."""
        about = json.loads(pq.read_metadata(path).metadata[_KEY])
        return cls(path, about["parts"], about["captures"])

    def rows(self, columns: Sequence[str] | None) -> pa.Table:
        """Read its rows, or some columns of them."""
        return pq.ParquetFile(self.path).read(columns=columns, use_threads=False)


def rows_frame(captures: Sequence[Capture]) -> pd.DataFrame:
    """Return the rows of captures, one below the other, with the columns of ``History.details``."""
    rows = [{"quantity": WEIGHTS, **row, "step": capture.step} for capture in captures for row in capture.rows]
    return details_frame(rows, HISTORY_COLUMNS)


def write_table(run_dir: Path, parts: dict[str, int], captures: Sequence[Capture]) -> Path:
    """Write the rows of captures as a table.

    Args:
        run_dir: The run.
        parts: Size of each capture's file, by name.
        captures: The captures, steps ascending.

    Returns:
        The file.
    """
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
    """Write the captures that no table holds as tables, a hundred at a time.

    Args:
        run_dir: The run.
        saved: Names of the files of captures that no table holds, steps ascending.

    Returns:
        Those that are left.
    """
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
    """Delete the tables that hold captures from a step on; the captures themselves stay."""
    for path in (run_dir / TABLES).glob("rows-*.parquet"):
        if int(path.stem.split("-")[2]) >= from_step:
            path.unlink(missing_ok=True)


def untabled(run_dir: Path) -> list[str]:
    """Names of the captures that no table holds, steps ascending."""
    held = {name for path in (run_dir / TABLES).glob("rows-*.parquet") for name in Table.open(path).parts}
    names = [path.name for path in (run_dir / CAPTURES).glob("step-*.npz")]
    return sorted((name for name in names if name not in held), key=capture_step)
