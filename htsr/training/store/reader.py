"""Reading one run's files: captures, the tables that repeat them, and lines of JSON."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from htsr.audit.columns import HISTORY_COLUMNS
from htsr.errors import InputError
from htsr.files import read_regular
from htsr.training.store.capture import Capture
from htsr.training.store.files import (
    ABOUT,
    CAPTURES,
    CHECKSUM,
    DAMAGE,
    FIRST_WITH_CHECKSUMS,
    READABLE,
    SCALARS,
    SCHEMA,
    TABLES,
    DamageError,
    capture_name,
    read_checked,
    read_lines,
)
from htsr.training.store.tables import Table, rows_frame

logger = logging.getLogger(__name__)

Stamp = tuple[int, int]  # time of change and size of a file


class RunReader:
    """Reads a run directory, which may grow; it reads a file once, and again only if somebody replaced it.

    ``damaged`` says what is wrong with a file, a capture or a line, by file name. What it names is left out, except for
    ``run.json``, whose description is used as it stands, and tables, in whose place the captures are read.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.about, self.damaged = read_about(run_dir)
        self._captures: dict[str, tuple[Stamp, Capture | None]] = {}  # by file name
        self._tables: dict[str, tuple[Stamp, Table | None]] = {}

    def headers(self) -> dict[int, dict[str, Any]]:
        """Return step, times and parameter groups of every capture, by step."""
        alone, tables = self._look()
        headers = {
            header["step"]: header for table, steps in tables for header in table.captures if header["step"] in steps
        }
        return headers | {capture.step: capture.header for capture in alone}

    def rows(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the rows of every capture, steps ascending, from the tables as far as they hold them."""
        wanted = [column.name for column in HISTORY_COLUMNS] if columns is None else list(columns)
        held = None
        while held is None:  # once more for each table that was damaged since it was opened
            alone, tables = self._look()
            held = self._held_rows(wanted, tables)
        rows = rows_frame(alone)[wanted]
        if held:
            frame = pd.concat(held, ignore_index=True)
            frame = frame.reindex(columns=wanted)  # a table of an older version may lack a column
            current = {step for _, steps in tables for step in steps}
            if len(current) < sum(len(table.parts) for table, _ in tables):
                frame = frame[frame["step"].isin(current)]
            if not (frame.dtypes == rows.dtypes).all():
                frame = frame.astype(rows.dtypes.to_dict())
            rows = pd.concat([frame, rows] if len(rows) else [frame], ignore_index=True)
        return (
            rows if rows["step"].is_monotonic_increasing else rows.sort_values("step", kind="stable", ignore_index=True)
        )

    def _held_rows(self, columns: list[str], tables: list[tuple[Table, set[int]]]) -> list[pd.DataFrame] | None:
        """Return the rows of each table; None, after noting it, if one is damaged."""
        held = []
        for table, _ in tables:
            try:
                held.append(table.rows(columns))
            except DAMAGE as err:
                name = table.path.name
                self._note_damaged_table(name, err)
                self._tables[name] = (self._tables[name][0], None)
                return None
        return held

    def capture(self, step: int) -> Capture | None:
        """Return the capture of a step; None if it is damaged or gone."""
        name = capture_name(step)
        known = self._captures.get(name)
        return known[1] if known is not None else self._load(name)

    def lines(self, file: str) -> list[dict[str, Any]]:
        """Return the intact lines of ``scalars.jsonl`` or ``events.jsonl``."""
        lines, damaged = read_lines(self.run_dir / file, numbers=file == SCALARS)
        self.damaged.update(damaged)
        return lines

    def _look(self) -> tuple[list[Capture], list[tuple[Table, set[int]]]]:
        """Return the captures that no table holds, by step, and each table with the steps for which it is current.

        A table is current for a step if the capture's file still has the size that the table was made from.
        """
        files = _stamps(self.run_dir / CAPTURES, ".npz")
        tables, held = [], set()
        known_tables: dict[str, tuple[Stamp, Table | None]] = {}
        for name, stamp in sorted(_stamps(self.run_dir / TABLES, ".npz").items()):
            known_table = self._tables.get(name)
            if known_table is None or known_table[0] != stamp:
                known_table = (stamp, self._open_table(name))
            known_tables[name] = known_table
            table = known_table[1]
            if table is None:
                continue
            same = {part for part, size in table.parts.items() if part in files and files[part][1] == size}
            current = {header["step"] for header in table.captures if capture_name(header["step"]) in same}
            if current:
                tables.append((table, current))
                held.update(same)
        known_captures: dict[str, tuple[Stamp, Capture | None]] = {}
        for name, stamp in sorted(files.items()):
            if name not in held:
                known = self._captures.get(name)
                known_captures[name] = (stamp, self._load(name)) if known is None or known[0] != stamp else known
        self._tables, self._captures = known_tables, known_captures
        alone = [capture for _, capture in known_captures.values() if capture is not None]
        return sorted(alone, key=lambda capture: capture.step), tables

    def _load(self, name: str) -> Capture | None:
        """Read a capture; return None, and say why in ``damaged``, if it is damaged."""
        self.damaged.pop(name, None)
        path = self.run_dir / CAPTURES / name
        try:
            return Capture.load(path)
        except FileNotFoundError:  # a run that was just resumed renamed it
            return None
        except DAMAGE as err:
            self.damaged[name] = str(err)
            logger.warning("%s is damaged and left out (%s)", path, self.damaged[name])
            return None

    def _open_table(self, name: str) -> Table | None:
        """Open a table; return None if it is damaged, so that its captures themselves are read."""
        self.damaged.pop(name, None)
        try:
            return Table.open(self.run_dir / TABLES / name)
        except FileNotFoundError:  # a run that was just resumed deleted it
            return None
        except DAMAGE as err:
            self._note_damaged_table(name, err)
            return None

    def _note_damaged_table(self, name: str, err: Exception) -> None:
        self.damaged[name] = f"{err}; its captures are read instead"
        logger.warning("%s is damaged: %s", self.run_dir / TABLES / name, self.damaged[name])


def _stamps(directory: Path, suffix: str) -> dict[str, Stamp]:
    """Return the stamp of each capture or table in a directory, by name."""
    found = {}
    if directory.is_dir():
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and entry.name.startswith(("step-", "rows-")):
                    with suppress(FileNotFoundError):  # a run that was just resumed renamed it
                        status = entry.stat()
                        found[entry.name] = (status.st_mtime_ns, status.st_size)
    return found


def read_about(run_dir: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the description of a run, and what is wrong with it by file name.

    Raises:
        FileNotFoundError: If the directory does not exist.
        InputError: If it is no run directory, its description cannot be read at all, or it has an unknown schema.
    """
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir}: no such directory")
    path = run_dir / ABOUT
    if not path.exists():
        raise InputError(f"{run_dir}: expected a run directory of htsr.Monitor, found no {ABOUT} in it")
    damaged = {}
    try:
        text = read_regular(path)
        try:
            about, checked = read_checked(text)
        except DamageError as err:
            about, checked = read_checked(CHECKSUM.sub(b"{", text))  # the rest may still tell enough
            damaged[ABOUT] = str(err)
        schema, version = about["schema"], about["htsr"]
    except (DamageError, KeyError, OSError) as err:
        raise InputError(f"{path}: expected the description of a run, got {type(err).__name__}: {err}") from err
    if schema not in READABLE:
        raise InputError(
            f"{run_dir}: expected schema {SCHEMA}, got {schema!r}, written by htsr {version}: read it with that version"
        )
    if schema >= FIRST_WITH_CHECKSUMS and not checked and not damaged:
        damaged[ABOUT] = "it has no checksum"
    return about, damaged
