"""The History of a run: what a Monitor wrote, as tables and spectra, also while the run goes on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd

from htsr.audit.columns import HISTORY_COLUMNS, Column
from htsr.audit.shown import Shown
from htsr.audit.table import shortened
from htsr.errors import InputError
from htsr.files import require_parquet
from htsr.labels import settings_text
from htsr.spectra.spectrum import Spectrum
from htsr.text import encodable, visible
from htsr.training.store.capture import QUANTITIES, WEIGHTS
from htsr.training.store.files import EVENTS, SCALARS, capture_name
from htsr.training.store.reader import RunReader
from htsr.training.store.tables import rows_frame

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes
    from htsr.training.store.runs import Runs


class History(Shown):
    """A run directory: captures of a model's spectra at some steps, and the scalars recorded with them.

    Every access looks at the directory again, so a history opened on a growing run grows with it. A history only reads, so
    several may read one run.

    Args:
        run_dir: A directory that ``htsr.Monitor`` wrote.

    Attributes:
        run_dir: The directory.
        about: When and with what the run was made.
        settings: ``lr``, ``power``, ``weight_decay`` and ``seed``, as far as the run has them, and what ``Monitor(about=...)``
            got. A learning rate is the one that schedules start from.
        columns: Type, meaning and unit of each column of ``details``, by name.
        damaged: Why a capture or a line of scalars could not be read, by file name. Everything else leaves them out.

    Raises:
        FileNotFoundError: If the directory does not exist.
        InputError: If it is not a run directory, or a version with another schema wrote it.
    """

    columns: ClassVar[Mapping[str, Column]] = {column.name: column for column in HISTORY_COLUMNS}

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self._reader = RunReader(self.run_dir)
        self.about = self._reader.about
        known = self.about.get("settings")
        self.settings: dict[str, Any] = dict(known) if isinstance(known, dict) else {}  # older runs have none
        self.damaged = self._reader.damaged

    @staticmethod
    def load_many(run_dirs: "str | Path | Iterable[str | Path] | Mapping[str, str | Path]") -> "Runs":
        """Open several runs to compare them side by side.

        Args:
            run_dirs: Run directories; or a mapping from label to directory; or one directory that holds run directories, also in
                folders inside it.

        Returns:
            The histories by label. By default the label is the shortest unique end of the path.

        Raises:
            FileNotFoundError: If a directory does not exist.
            InputError: If one is not a run directory, or there is none.
        """
        from htsr.training.store.runs import open_runs

        return open_runs(run_dirs)

    @property
    def quantities(self) -> tuple[str, ...]:
        """What the Monitor captured, weights first: some of ``weights``, ``gradients``, ``momentum`` and ``updates``."""
        captured = self.about.get("capture")
        known = captured if isinstance(captured, list) else []
        return tuple(name for name in QUANTITIES if name in known) or (WEIGHTS,)  # older runs do not tell

    @property
    def steps(self) -> list[int]:
        """Captured steps, ascending."""
        return sorted(self._reader.headers())

    @property
    def details(self) -> pd.DataFrame:
        """The rows of every capture, one below the other.

        The columns are ``step``, those of ``Analysis.details``, ``quantity`` (weights, gradients, momentum or updates),
        ``distance`` (the Frobenius norm of the change that the step made to the layer) and ``relative_distance`` (the same,
        divided by the norm of the weight before the step).
        """
        return self._reader.rows()

    @property
    def scalars(self) -> pd.DataFrame:
        """The numbers that ``Monitor.record`` got: one row a step, one column a name."""
        by_step: dict[int, dict[str, Any]] = {}
        for values in self._reader.lines(SCALARS):
            by_step.setdefault(values["step"], {}).update({encodable(name): values[name] for name in values})
        table = pd.DataFrame([by_step[step] for step in sorted(by_step)])
        return table if len(table) else pd.DataFrame({"step": pd.Series(dtype="int64")})

    @property
    def last_scalars(self) -> dict[str, float]:
        """The last recorded value of each scalar; NaN if the last value was NaN."""
        last: dict[str, float] = {}
        for values in self._reader.lines(SCALARS):
            last |= {encodable(name): values[name] for name in values}
        last.pop("step", None)
        return last

    def last_tenths(self, at_least: int = 20) -> dict[str, float]:
        """The mean of the last tenth of each scalar's values, which says more of a noisy loss than its last value.

        Args:
            at_least: Scalars with fewer values are left out.

        Returns:
            The means by name.
        """
        scalars = self.scalars
        values = {str(name): scalars[name].dropna() for name in scalars if name != "step"}
        return {
            name: float(one.tail(max(1, len(one) // 10)).mean())
            for name, one in values.items()
            if len(one) >= max(1, at_least)
        }

    @property
    def events(self) -> pd.DataFrame:
        """Events: step, kind and message of each skipped capture, each failure, each condition that came true, and the like."""
        return pd.DataFrame(self._reader.lines(EVENTS), columns=["step", "kind", "message"])

    @property
    def groups(self) -> pd.DataFrame:
        """The optimizer's parameter groups at each capture: settings (lr, power, ...) and ``update_rms``.

        ``update_rms`` is the root mean square of the change that the step made to the parameters of the group.
        """
        headers = self._reader.headers()
        rows = [
            {"step": step, "group": number, **group}
            for step in sorted(headers)
            for number, group in enumerate(headers[step]["groups"])
        ]
        return pd.DataFrame(rows)

    @property
    def captures(self) -> pd.DataFrame:
        """One row a capture: its step, the seconds since the monitor started, and the seconds that its analysis took."""
        headers = self._reader.headers()
        columns = ["step", "seconds", "analysis_seconds"]
        return pd.DataFrame([[headers[step][name] for name in columns] for step in sorted(headers)], columns=columns)

    @property
    def analysis_seconds(self) -> float:
        """Seconds that the analyses of all captures took together."""
        return sum(header["analysis_seconds"] for header in self._reader.headers().values())

    def spectrum(self, step: int, name: str, quantity: str = WEIGHTS) -> Spectrum:
        """The spectrum of a layer at a captured step.

        Args:
            step: One of ``steps``.
            name: Name of the layer, as in ``details``.
            quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``, if the run captured it.

        Returns:
            Its spectrum.

        Raises:
            KeyError: If there is no spectrum for that step and name.
        """
        steps = self._reader.headers()
        if step not in steps:
            raise KeyError(
                f"step {step}: expected one of the captured steps {shortened(sorted(steps)) or '(none yet)'}"
            )
        capture = self._reader.capture(step)
        if capture is None:
            raise KeyError(f"step {step}: {self.damaged[capture_name(step)]}")
        names = [known for of, known in capture.spectra if of == quantity]
        if name not in names:
            what = "" if quantity == WEIGHTS else f" of its {quantity}"
            raise KeyError(
                f"{name!r} has no spectrum{what} at step {step}: expected one of {shortened(names) or '(no layer has one)'}"
            )
        return capture.spectra[quantity, name]

    def spectra(self, name: str, quantity: str = WEIGHTS) -> dict[int, Spectrum]:
        """The spectra of a layer by step; steps at which it had no spectrum are left out.

        Args:
            name: Name of the layer.
            quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``.

        Returns:
            A mapping from step to spectrum, steps ascending.
        """
        captures = ((step, self._reader.capture(step)) for step in self.steps)
        return {
            step: capture.spectra[quantity, name]
            for step, capture in captures
            if capture is not None and (quantity, name) in capture.spectra
        }

    def spectra_at(self, step: int, quantity: str = WEIGHTS) -> dict[str, Spectrum]:
        """The spectra of all layers at a captured step.

        Args:
            step: One of ``steps``.
            quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``.

        Returns:
            A mapping from name to spectrum; empty if there is no capture of the step, or it is damaged.
        """
        capture = self._reader.capture(step)
        found = {} if capture is None else capture.spectra
        return {name: spectrum for (of, name), spectrum in found.items() if of == quantity}

    def alpha(self, quantity: str = WEIGHTS) -> pd.DataFrame:
        """Alpha as a table, steps down and layers across; see ``over_steps``."""
        return self.over_steps("alpha", quantity)

    def over_steps(self, metric: str, quantity: str = WEIGHTS) -> pd.DataFrame:
        """A metric as a table, steps down and layers across, in model order.

        Args:
            metric: A column of ``details``.
            quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``.

        Returns:
            The table, without tied layers.

        Raises:
            InputError: If the run did not capture the quantity.
            ValueError: If the column or the quantity is unknown.
        """
        if metric not in rows_frame([]):
            raise ValueError(f"expected a column of details, got {metric!r}")
        if quantity not in QUANTITIES:
            raise ValueError(f"expected one of {', '.join(QUANTITIES)}, got {quantity!r}")
        rows = self._reader.rows(list(dict.fromkeys(["step", "name", "quantity", "tied_to", metric])))
        if quantity not in self.quantities and quantity not in set(rows["quantity"]):
            raise InputError(
                f"{self.run_dir}: the Monitor captured {' and '.join(self.quantities)}, not {quantity}: pass "
                f"quantity={self.quantities[0]!r}, or train with {quantity!r} in Monitor(capture=...)"
            )
        rows = rows[(rows["tied_to"] == "") & (rows["quantity"] == quantity)]
        return rows.pivot(index="step", columns="name", values=metric)[list(dict.fromkeys(rows["name"]))]

    def to_parquet(self, path: str | Path, *, spectra: bool = False) -> Path:
        """Write ``details`` as one Parquet file.

        Args:
            path: The file to write.
            spectra: Add a column ``eigenvalues``: a list of numbers, or null where a layer has no spectrum.

        Returns:
            The path.

        Raises:
            InputError: If pyarrow, which ``htsr[parquet]`` brings, is not installed.
        """
        require_parquet(Path(path))
        rows = self.details
        if spectra:
            by_step = {
                step: capture.spectra for step in self.steps if (capture := self._reader.capture(step)) is not None
            }
            keys = zip(rows["step"], rows["quantity"], rows["name"], strict=True)
            found = (by_step.get(step, {}).get((quantity, name)) for step, quantity, name in keys)
            rows = rows.assign(eigenvalues=[None if spectrum is None else spectrum.eigenvalues for spectrum in found])
        rows.to_parquet(path, index=False)
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Write the run.

        Args:
            path: The file to write. The suffix picks the format: ``.html`` is a self-contained report, ``.json`` everything
                but the spectra, ``.csv`` and ``.parquet`` the details.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these, ``.parquet`` is asked for without pyarrow (``htsr[parquet]``), or
                ``path`` asks for a report and the run has no captures.
        """
        from htsr.report.save import save_history

        return save_history(self, Path(path))

    def _page(self) -> str:
        from htsr.report.pages import runs_page

        return runs_page({self.run_dir.name: self})

    def plot(
        self,
        kind: str = "alpha",
        *,
        how: Literal["lines", "heat map", "ridges"] | None = None,
        ax: "ManyAxes | None" = None,
    ) -> "Figure":
        """Draw the run.

        Args:
            kind: The name of a numeric column of ``details``, drawn against the step for each layer; the name of a layer, to
                draw its ESD at a few captured steps; the name of a recorded scalar; or ``"phase"``.
            how: A column is drawn with ``"lines"`` or as a ``"heat map"``; a layer with ``"lines"`` on top of each other or with
                ``"ridges"``, one for each step. Lines by default.
            ax: Where to draw: matplotlib axes. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            InputError: If the run has no captures, or no layer.
            ValueError: If ``kind`` is none of these, or cannot be drawn that way.
        """
        from htsr import plots

        if how not in (None, "lines", "heat map", "ridges"):
            raise ValueError(f"expected how='lines', 'heat map' or 'ridges', got {how!r}")
        details = self.details
        drawn: Axes | np.ndarray
        is_layer = kind in set(details["name"])
        if not is_layer and kind in self.scalars and kind != "step":
            drawn = plots.plot_scalars({self.run_dir.name: self}, (kind,), ax=ax)
        elif not len(details):
            raise InputError(f"{self.run_dir}: nothing captured yet, or no layer to draw")
        elif is_layer:
            drawn = (
                plots.plot_ridgeline(self, kind, ax=ax)
                if how == "ridges"
                else plots.plot_esd_over_steps(self, kind, ax=ax)
            )
        elif kind == "phase":
            drawn = plots.plot_phases(details, ax=ax)
        else:
            draw = plots.plot_heat_map if how == "heat map" else plots.plot_layers_over_steps
            drawn = draw(self, kind, ax=ax)
        return plots.figure_of(drawn)

    def __len__(self) -> int:
        return len(self._reader.headers())

    def __repr__(self) -> str:
        return f"{self.headline()}\n{self._table().to_string(max_cols=12, max_rows=30, float_format='{:.2f}'.format)}"

    def _repr_html_(self) -> str:
        from htsr.report.notebook import history_html

        return history_html(self)

    def headline(self) -> str:
        """What was watched, where it is kept, and how many captures there are."""
        damaged = f", {len(self.damaged)} damaged" if self.damaged else ""
        settings = f" ({visible(settings_text(self.settings))})" if self.settings else ""
        of = "" if self.quantities[0] == WEIGHTS else f" of {self.quantities[0]}"
        return (
            f"History of {visible(self.about.get('model'))} in {visible(self.run_dir)}{settings}: {len(self)} captures{damaged}; "
            f"alpha{of} by step and layer"
        )

    def _table(self) -> pd.DataFrame:
        return self.alpha(self.quantities[0]).rename(columns=visible) if len(self) else pd.DataFrame()
