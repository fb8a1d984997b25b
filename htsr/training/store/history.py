"""What a monitor wrote, read back, also while the run goes on."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import pyarrow as pa

from htsr.audit.columns import HISTORY_COLUMNS, Column
from htsr.audit.table import shortened
from htsr.errors import InputError
from htsr.spectra.spectrum import Spectrum
from htsr.training.store.capture import DAMAGE, QUANTITIES, WEIGHTS, Capture
from htsr.training.store.files import (
    ABOUT,
    CAPTURES,
    EVENTS,
    READABLE,
    SCALARS,
    SCHEMA,
    TABLES,
    capture_name,
    read_lines,
)
from htsr.training.store.tables import Table, rows_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.training.store.runs import Runs

logger = logging.getLogger(__name__)


class History:
    """A run directory: captures of a model's spectra at some steps, and the scalars recorded beside them.

    Every access looks at the directory again, so a history opened on a growing run grows with it. Files are only read:
    several histories may read one run.

    Args:
        run_dir: A directory that ``htsr.Monitor`` wrote.

    Attributes:
        run_dir: The directory.
        about: When and with what the run was made.
        columns: Type, meaning and unit of each column of ``details``, by name.
        damaged: Why a capture or a line of scalars could not be read, by file name. They are left out of everything else.

    Raises:
        FileNotFoundError: If the directory does not exist.
        InputError: If it is no run directory, or was written by a version with another schema.
    """

    columns: ClassVar[Mapping[str, Column]] = {column.name: column for column in HISTORY_COLUMNS}

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self.about = _read_about(self.run_dir)
        self.damaged: dict[str, str] = {}
        self._captures: dict[str, tuple[tuple[int, int], Capture | None]] = {}  # by file name, with the file's stamp
        self._tables: dict[str, tuple[tuple[int, int], Table | None]] = {}

    @staticmethod
    def load_many(run_dirs: "str | Path | Iterable[str | Path] | Mapping[str, str | Path]") -> "Runs":
        """Open several runs, to be looked at side by side.

        Args:
            run_dirs: Run directories; or label and directory of each; or one directory that holds run directories.

        Returns:
            The histories by label, the shortest unique end of each path unless labels are given.

        Raises:
            FileNotFoundError: If a directory does not exist.
            InputError: If one is no run directory, or there is none.
        """
        from htsr.training.store.runs import open_runs

        return open_runs(run_dirs)

    @property
    def steps(self) -> list[int]:
        """Steps that were captured, ascending."""
        return sorted(self._looks())

    @property
    def details(self) -> pd.DataFrame:
        """The rows of every capture, one below the other.

        The columns of ``Analysis.details`` with ``step`` before; ``quantity``: weights, gradients, momentum or updates;
        ``distance``, the Frobenius norm of the change that the step made to the layer; and ``relative_distance``, over the
        norm of the weight before.
        """
        return self._rows()

    @property
    def scalars(self) -> pd.DataFrame:
        """What ``Monitor.record`` was given: a row a step, a column a name."""
        by_step: dict[int, dict[str, Any]] = {}
        for values in self._lines(SCALARS):
            by_step.setdefault(values["step"], {}).update(values)
        table = pd.DataFrame([by_step[step] for step in sorted(by_step)])
        return table if len(table) else pd.DataFrame({"step": pd.Series(dtype="int64")})

    @property
    def last_scalars(self) -> dict[str, float]:
        """The last value of each scalar that was recorded, NaN if that is what it was."""
        last: dict[str, float] = {}
        for values in self._lines(SCALARS):
            last |= values
        last.pop("step", None)
        return last

    @property
    def events(self) -> pd.DataFrame:
        """What happened besides: step, kind and message of every skipped capture, failure and condition that held."""
        return pd.DataFrame(self._lines(EVENTS), columns=["step", "kind", "message"])

    @property
    def groups(self) -> pd.DataFrame:
        """The optimizer's parameter groups at each capture: settings (lr, power, ...) and ``update_rms``.

        ``update_rms`` is the root mean square of what the step changed in the parameters of the group.
        """
        looks = self._looks()
        rows = [
            {"step": step, "group": number, **group}
            for step in sorted(looks)
            for number, group in enumerate(looks[step]["groups"])
        ]
        return pd.DataFrame(rows)

    @property
    def captures(self) -> pd.DataFrame:
        """One row a capture: step, seconds since the monitor started, and the seconds that the capture took."""
        looks = self._looks()
        columns = ["step", "seconds", "analysis_seconds"]
        return pd.DataFrame([[looks[step][name] for name in columns] for step in sorted(looks)], columns=columns)

    @property
    def analysis_seconds(self) -> float:
        """What all captures together took."""
        return sum(look["analysis_seconds"] for look in self._looks().values())

    def spectrum(self, step: int, name: str, quantity: str = WEIGHTS) -> Spectrum:
        """The spectrum of a layer at a captured step.

        Args:
            step: One of ``steps``.
            name: Name of the layer, as in ``details``.
            quantity: Weights, gradients, momentum or updates, as far as they were captured.

        Returns:
            Its spectrum.

        Raises:
            KeyError: If there is none for that step and name.
        """
        steps = self._looks()
        if step not in steps:
            raise KeyError(
                f"step {step}: expected one of the captured steps {shortened(sorted(steps)) or '(none yet)'}"
            )
        capture = self._capture(step)
        if capture is None:
            raise KeyError(f"step {step}: {self.damaged[capture_name(step)]}")
        names = [known for of, known in capture.spectra if of == quantity]
        if name not in names:
            what = "" if quantity == WEIGHTS else f" of its {quantity}"
            raise KeyError(
                f"{name!r} has no spectrum{what} at step {step}: expected one of {shortened(names) or '(none has)'}"
            )
        return capture.spectra[quantity, name]

    def spectra(self, name: str, quantity: str = WEIGHTS) -> dict[int, Spectrum]:
        """The spectra of a layer by step, without the steps at which it had none.

        Args:
            name: Name of the layer.
            quantity: Weights, gradients, momentum or updates.

        Returns:
            Step and spectrum, steps ascending.
        """
        captures = ((step, self._capture(step)) for step in self.steps)
        return {
            step: capture.spectra[quantity, name]
            for step, capture in captures
            if capture is not None and (quantity, name) in capture.spectra
        }

    def alpha(self, quantity: str = WEIGHTS) -> pd.DataFrame:
        """Alpha as a table, steps down and layers across; see ``over_steps``."""
        return self.over_steps("alpha", quantity)

    def over_steps(self, metric: str, quantity: str = WEIGHTS) -> pd.DataFrame:
        """A metric as a table, steps down and layers across, in model order.

        Args:
            metric: A column of ``details``.
            quantity: Weights, gradients, momentum or updates.

        Returns:
            The table; tied layers are left out.

        Raises:
            ValueError: If there is no such column.
        """
        if metric not in rows_frame([]):
            raise ValueError(f"expected a column of details, got {metric!r}")
        if quantity not in QUANTITIES:
            raise ValueError(f"expected one of {', '.join(QUANTITIES)}, got {quantity!r}")
        rows = self._rows(list(dict.fromkeys(["step", "name", "quantity", "tied_to", metric])))
        rows = rows[(rows["tied_to"] == "") & (rows["quantity"] == quantity)]
        return rows.pivot(index="step", columns="name", values=metric)[list(dict.fromkeys(rows["name"]))]

    def to_parquet(self, path: str | Path, *, spectra: bool = False) -> Path:
        """Write ``details`` as one Parquet file.

        Args:
            path: Where to.
            spectra: Add a column ``eigenvalues``, a list of numbers in each row; null where a layer has no spectrum.

        Returns:
            The path.
        """
        rows = self.details
        if spectra:
            by_step = {step: capture.spectra for step in self.steps if (capture := self._capture(step)) is not None}
            keys = zip(rows["step"], rows["quantity"], rows["name"], strict=True)
            found = (by_step.get(step, {}).get((quantity, name)) for step, quantity, name in keys)
            rows = rows.assign(eigenvalues=[None if spectrum is None else spectrum.eigenvalues for spectrum in found])
        rows.to_parquet(path, index=False)
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Write the run.

        Args:
            path: Where to. The suffix picks the format: ``.html`` a self-contained report, ``.json`` everything but the spectra,
                ``.csv`` and ``.parquet`` the details.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these, or nothing was captured and a report is asked for.
        """
        from htsr.report.save import save_history

        return save_history(self, Path(path))

    def plot(self, kind: str = "alpha") -> "Figure":
        """Draw the run.

        Args:
            kind: The name of a numeric column of ``details``, drawn against the step, a line a layer; or the name of a
                layer, whose ESD is drawn at each captured step.

        Returns:
            A matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is neither, or nothing was captured.
        """
        from htsr.plots import plot_esd_over_steps, plot_layers_over_steps

        if not len(self.details):
            raise ValueError(f"{self.run_dir}: nothing captured yet, or no layer to draw")
        if kind in set(self.details["name"]):
            return plot_esd_over_steps(self, kind)
        return plot_layers_over_steps(self, kind)

    def __len__(self) -> int:
        return len(self._looks())

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self._table().to_string(max_cols=12, max_rows=30, float_format='{:.2f}'.format)}"

    def _repr_html_(self) -> str:
        table = self._table().to_html(max_cols=12, max_rows=30, float_format="{:.2f}".format, border=0)
        return f"<p>{escape(self._headline())}</p>{table}"

    def _headline(self) -> str:
        damaged = f", {len(self.damaged)} damaged" if self.damaged else ""
        return f"History of {self.about.get('model')} in {self.run_dir}: {len(self)} captures{damaged}; alpha by step and layer"

    def _table(self) -> pd.DataFrame:
        return self.alpha() if len(self) else pd.DataFrame()

    def _rows(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of every capture, those that tables hold read from there."""
        alone, tables = self._read()
        frames = [rows_frame(alone)[columns] if columns else rows_frame(alone)]
        if tables:
            wanted = list(frames[0])
            held = pa.concat_tables([table.rows(columns) for table, _ in tables], promote_options="default")
            frame = held.to_pandas().reindex(columns=wanted)  # a table of an older version may lack a column
            believed = {step for _, steps in tables for step in steps}
            if len(believed) < sum(len(table.parts) for table, _ in tables):
                frame = frame[frame["step"].isin(believed)]
            if not (frame.dtypes == frames[0].dtypes).all():
                frame = frame.astype(frames[0].dtypes.to_dict())
            frames = [frame, *(frames if len(frames[0]) else [])]
        rows = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        return (
            rows if rows["step"].is_monotonic_increasing else rows.sort_values("step", kind="stable", ignore_index=True)
        )

    def _looks(self) -> dict[int, dict[str, Any]]:
        """Step, times and groups of every capture, by step."""
        alone, tables = self._read()
        looks = {look["step"]: look for table, steps in tables for look in table.captures if look["step"] in steps}
        return looks | {capture.step: vars(capture) for capture in alone}

    def _read(self) -> tuple[list[Capture], list[tuple[Table, set[int]]]]:
        """Look at the directory. A file is read once, and again only if it was replaced.

        Returns:
            The captures that no table holds, by step; and the tables with the steps for which they are believed.
        """
        parts = _sizes(self.run_dir / CAPTURES, ".npz")
        tables, held = [], set()
        known_tables = {}
        for name, stamp in sorted(_sizes(self.run_dir / TABLES, ".parquet").items()):
            known = self._tables.get(name)
            known_tables[name] = known if known is not None and known[0] == stamp else (stamp, self._open_table(name))
            table = known_tables[name][1]
            if table is None:
                continue
            same = {part for part, size in table.parts.items() if part in parts and parts[part][1] == size}
            believed = {look["step"] for look in table.captures if capture_name(look["step"]) in same}
            if believed:
                tables.append((table, believed))
                held.update(same)
        self._tables = known_tables
        seen = {}
        for name, stamp in sorted(parts.items()):
            if name not in held:
                known_part = self._captures.get(name)
                fresh = known_part is None or known_part[0] != stamp
                seen[name] = (stamp, self._load(name)) if fresh else known_part
        self._captures = seen  # type: ignore[assignment]
        alone = [found[1] for found in seen.values() if found is not None and found[1] is not None]
        return sorted(alone, key=lambda capture: capture.step), tables

    def _capture(self, step: int) -> Capture | None:
        name = capture_name(step)
        known = self._captures.get(name)
        return known[1] if known is not None else self._load(name)

    def _load(self, name: str) -> Capture | None:
        self.damaged.pop(name, None)
        path = self.run_dir / CAPTURES / name
        try:
            return Capture.load(path)
        except FileNotFoundError:  # set aside just now by a run that was resumed
            return None
        except DAMAGE as err:
            self.damaged[name] = f"{type(err).__name__}: {err}"
            logger.warning("%s is damaged and left out (%s)", path, self.damaged[name])
            return None

    def _open_table(self, name: str) -> Table | None:
        """A table, or None if it is damaged: the captures it was made from are then read themselves."""
        try:
            return Table.open(self.run_dir / TABLES / name)
        except (*DAMAGE, pa.ArrowException) as err:
            logger.warning("%s cannot be used, its captures are read instead (%s)", self.run_dir / TABLES / name, err)
            return None

    def _lines(self, file: str) -> list[dict[str, Any]]:
        lines, damaged = read_lines(self.run_dir / file, numbers=file == SCALARS)
        self.damaged.update(damaged)
        return lines


def _sizes(directory: Path, suffix: str) -> dict[str, tuple[int, int]]:
    """Time of change and size of each part in a directory, by name."""
    found = {}
    if directory.is_dir():
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and entry.name.startswith(("step-", "rows-")):
                    with suppress(FileNotFoundError):  # set aside just now by a run that was resumed
                        status = entry.stat()
                        found[entry.name] = (status.st_mtime_ns, status.st_size)
    return found


def _read_about(run_dir: Path) -> dict[str, object]:
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir}: no such directory")
    path = run_dir / ABOUT
    if not path.exists():
        raise InputError(f"{run_dir}: expected a run directory of htsr.Monitor, found no {ABOUT} in it")
    try:
        about: dict[str, object] = json.loads(path.read_text())
        schema, version = about["schema"], about["htsr"]
    except (ValueError, KeyError, TypeError) as err:
        raise InputError(f"{path}: expected the description of a run, got {type(err).__name__}: {err}") from err
    if schema not in READABLE:
        raise InputError(
            f"{run_dir}: expected schema {SCHEMA}, got {schema!r}, written by htsr {version}: read it with that version"
        )
    return about
