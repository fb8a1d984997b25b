"""What a monitor wrote, read back, also while the run goes on."""

import json
import logging
import zipfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from htsr.analysis import details_frame, some
from htsr.errors import InputError
from htsr.spectrum import Spectrum
from htsr.training.capture import Capture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

SCHEMA = 1
ABOUT, SCALARS, CAPTURES = "run.json", "scalars.jsonl", "captures"


class History:
    """A run directory: captures of a model's spectra at some steps, and the scalars recorded beside them.

    Every access looks at the directory again, so a history opened on a growing run grows with it. Files are only read:
    several histories may read one run.

    Args:
        run_dir: A directory that ``htsr.Monitor`` wrote.

    Attributes:
        run_dir: The directory.
        about: When and with what the run was made.
        damaged: Why a capture or a line of scalars could not be read, by file name. They are left out of everything else.

    Raises:
        FileNotFoundError: If the directory does not exist.
        InputError: If it is no run directory, or was written by a version with another schema.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self.about = _read_about(self.run_dir)
        self.damaged: dict[str, str] = {}
        self._captures: dict[str, tuple[tuple[int, int], Capture | None]] = {}  # by file name, with the file's stamp

    @property
    def steps(self) -> list[int]:
        """Steps that were captured, ascending."""
        return [capture.step for capture in self._read()]

    @property
    def details(self) -> pd.DataFrame:
        """The rows of every capture, one below the other, with a first column ``step``."""
        captures = self._read()
        table = details_frame([row for capture in captures for row in capture.rows])
        table.insert(0, "step", [capture.step for capture in captures for _ in capture.rows])
        return table

    @property
    def scalars(self) -> pd.DataFrame:
        """What ``Monitor.record`` was given: a row a step, a column a name."""
        path = self.run_dir / SCALARS
        by_step: dict[int, dict[str, float]] = {}
        lines = path.read_text().split("\n") if path.exists() else []
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                values = json.loads(line)
            except ValueError:
                if number < len(lines):  # the last line may be in the middle of being written
                    self.damaged[f"{SCALARS}, line {number}"] = "an unfinished line"
                continue
            by_step.setdefault(values["step"], {}).update(values)
        table = pd.DataFrame([by_step[step] for step in sorted(by_step)])
        return table if len(table) else pd.DataFrame({"step": pd.Series(dtype="int64")})

    @property
    def groups(self) -> pd.DataFrame:
        """Settings of the optimizer's parameter groups (lr, power, ...) at each capture."""
        rows = [
            {"step": capture.step, "group": number, **group}
            for capture in self._read()
            for number, group in enumerate(capture.groups)
        ]
        return pd.DataFrame(rows)

    @property
    def analysis_seconds(self) -> float:
        """What all captures together took."""
        return sum(capture.analysis_seconds for capture in self._read())

    def spectrum(self, step: int, name: str) -> Spectrum:
        """The spectrum of a layer at a captured step.

        Args:
            step: One of ``steps``.
            name: Name of the layer, as in ``details``.

        Returns:
            Its spectrum.

        Raises:
            KeyError: If there is none for that step and name.
        """
        captures = {capture.step: capture for capture in self._read()}
        if step not in captures:
            raise KeyError(f"step {step}: expected one of the captured steps {some(sorted(captures))}")
        spectra = captures[step].spectra
        if name not in spectra:
            raise KeyError(f"{name!r} has no spectrum at step {step}: expected one of {some(list(spectra))}")
        return spectra[name]

    def spectra(self, name: str) -> dict[int, Spectrum]:
        """The spectra of a layer by step, without the steps at which it had none.

        Args:
            name: Name of the layer.

        Returns:
            Step and spectrum, steps ascending.
        """
        return {capture.step: capture.spectra[name] for capture in self._read() if name in capture.spectra}

    def alpha(self) -> pd.DataFrame:
        """Alpha as a table, steps down and layers across; see ``over_steps``."""
        return self.over_steps("alpha")

    def over_steps(self, metric: str) -> pd.DataFrame:
        """A metric as a table, steps down and layers across, in model order.

        Args:
            metric: A numeric column of ``details``.

        Returns:
            The table; tied layers are left out.

        Raises:
            ValueError: If there is no such column.
        """
        details = self.details
        if metric not in details:
            raise ValueError(f"expected a column of details, got {metric!r}")
        details = details[details["tied_to"] == ""]
        return details.pivot(index="step", columns="name", values=metric)[list(dict.fromkeys(details["name"]))]

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
        return len(self._read())

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

    def _read(self) -> list[Capture]:
        """All captures, by step. A file is read once, and again only if it was replaced."""
        seen = {}
        for path in sorted((self.run_dir / CAPTURES).glob("step-*.npz")):
            try:
                status = path.stat()
            except FileNotFoundError:  # set aside just now by a run that was resumed
                continue
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._captures.get(path.name)
            seen[path.name] = known if known is not None and known[0] == stamp else (stamp, self._load(path))
        self._captures = seen
        captures = [capture for _, capture in seen.values() if capture is not None]
        return sorted(captures, key=lambda capture: capture.step)

    def _load(self, path: Path) -> Capture | None:
        self.damaged.pop(path.name, None)
        try:
            return Capture.load(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as err:
            self.damaged[path.name] = f"{type(err).__name__}: {err}"
            logger.warning("%s is damaged and left out (%s)", path, self.damaged[path.name])
            return None


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
    if schema != SCHEMA:
        raise InputError(
            f"{run_dir}: expected schema {SCHEMA}, got {schema!r}, written by htsr {version}: read it with that version"
        )
    return about
