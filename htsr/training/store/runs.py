"""Runs: several histories side by side."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from htsr.audit.shown import Shown
from htsr.errors import InputError
from htsr.labels import labels
from htsr.text import visible
from htsr.training.store.capture import WEIGHTS
from htsr.training.store.files import ABOUT, CAPTURES
from htsr.training.store.history import History
from htsr.training.store.seeds import best, by_setting, paired, values
from htsr.weights.names import distinct_ends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes


class Runs(Shown, Mapping[str, History]):
    """Histories by label; ``History.load_many`` makes them.

    Args:
        histories: Label and history of each run, in order.
        named: Whether somebody chose the labels, so that legends keep them.
    """

    def __init__(self, histories: Mapping[str, History], named: bool = True) -> None:
        self._histories = dict(histories)
        self._named = named

    @property
    def settings(self) -> pd.DataFrame:
        """One row a run, one column a setting, such as ``lr``, ``power``, ``seed`` and those of ``Monitor(about=...)``."""
        rows = [history.settings for history in self.values()]
        return pd.DataFrame(rows, index=pd.Index(list(self), name="run"), dtype=None if any(rows) else "object")

    @property
    def legend(self) -> dict[str, str]:
        """A name for each run in a picture, by its label: the settings in which the runs differ, such as ``p = 1/8, seed = 0``.

        It is the label itself where somebody chose the labels, or if the runs do not differ.
        """
        if self._named:
            return {label: label for label in self}
        return labels({label: history.settings for label, history in self.items()})

    @property
    def details(self) -> pd.DataFrame:
        """The rows of every run, one below the other; the first column, ``run``, holds the label."""
        frames = [history.details.assign(run=label) for label, history in self.items()]
        table = pd.concat(frames, ignore_index=True)
        return table[["run", *(name for name in table if name != "run")]]

    def alpha(self, quantity: str = WEIGHTS) -> pd.DataFrame:
        """Median alpha over layers, steps down and runs across; see ``over_steps``."""
        return self.over_steps("alpha", quantity)

    def over_steps(self, metric: str, quantity: str = WEIGHTS) -> pd.DataFrame:
        """The median of a metric over layers.

        Args:
            metric: A numeric column of ``details``.
            quantity: ``weights``, ``gradients``, ``momentum`` or ``updates``.

        Returns:
            A table, steps down and runs across, with NaN where a run has no capture of a step.
        """
        medians = {label: history.over_steps(metric, quantity).median(axis=1) for label, history in self.items()}
        return pd.DataFrame(medians).sort_index()

    def summary(self) -> pd.DataFrame:
        """One row a run: model, optimizer, settings, captures, last step, medians over layers at the last capture, last scalars.

        A run that captured no weights has no medians. A scalar with at least 20 values has a second column,
        ``<name>_last_tenth``: the mean of the last tenth of its values.
        """
        rows = []
        for label, history in self.items():
            row: dict[str, object] = {"run": label, "model": history.about.get("model")}
            row |= {"optimizer": history.about.get("optimizer"), **history.settings, "captures": len(history)}
            if len(history):
                row["last_step"] = history.steps[-1]
                for metric in ("alpha", "stable_rank") if WEIGHTS in history.quantities else ():
                    row[f"{metric}_median"] = history.over_steps(metric).iloc[-1].median()
            means = history.last_tenths()
            for name, value in history.last_scalars.items():
                row[name] = value
                if name in means:
                    row[f"{name}_last_tenth"] = means[name]
            rows.append(row)
        return pd.DataFrame(rows)

    def where(self, **settings: object) -> "Runs":
        """Keep the runs with certain settings.

        Args:
            **settings: Names and values, such as ``lr=0.02``; of a list or another collection, any of its values.

        Returns:
            These runs, under their labels.

        Raises:
            ValueError: If a run does not tell one of the settings.
            InputError: If no run has them.
        """
        wanted = {
            name: list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
            for name, value in settings.items()
        }
        kept = {
            label: history
            for label, history in self.items()
            if all(self._told(label, name) in allowed for name, allowed in wanted.items())
        }
        if not kept:
            asked = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            raise InputError(f"expected runs with {asked}, found none among {len(self)}")
        return Runs(kept, self._named)

    def table(self, setting: str | Sequence[str], metric: str) -> pd.DataFrame:
        """The end of training for each value of a setting, over runs that differ in their seed.

        Args:
            setting: A setting of the runs, such as ``"power"``, or several.
            metric: A recorded scalar, such as ``"held_out_loss"``, of which the mean of the last tenth counts if it has at least
                20 values, and else the last value; or a numeric column of ``details``, of which the median over layers at the
                last capture counts.

        Returns:
            One row a value: the setting, ``mean``, ``sd``, ``low`` and ``high`` (Student's 95 % interval of the mean), ``n``.
            Runs whose metric is not finite are left out. A warning in the log names them, and runs that ended early.

        Raises:
            ValueError: If a run does not tell the setting, or has no such metric.
            InputError: If runs with one value differ in more than their seed, or two share it.
        """
        names = [setting] if isinstance(setting, str) else list(setting)
        return by_setting(values(self, metric), names)

    def paired(self, setting: str, *, baseline: object, metric: str, see: float | None = None) -> pd.DataFrame:
        """Differences from a baseline, paired by seed: what a setting does beside what chance does.

        Args:
            setting: A setting of the runs, such as ``"power"``.
            baseline: The value that the others are compared with.
            metric: As in ``table``.
            see: The smallest difference that would matter, for ``seeds_needed``; by default the difference that was found.

        Returns:
            One row for each other value: the setting, ``difference`` (the mean over seeds that both have), ``low`` and ``high``
            (the paired t interval of 95 %), ``n`` seeds, ``sd`` of the differences, ``visible``: the true difference that
            so many seeds show in 80 % of studies (two-sided t test at 5 %), and ``seeds_needed``: how many show ``see``.
            Runs without a finite metric, and runs that ended early, are treated as in ``table``.

        Raises:
            ValueError: If a run does not tell the setting or its seed, has no such metric, or no run has the baseline.
            InputError: As ``table``.
        """
        if see is not None and not isinstance(see, int | float):
            raise TypeError(f"expected see to be a number, got {type(see).__name__} {see!r}")
        if see is not None and not see > 0:
            raise ValueError(f"expected see > 0, the size of a difference, got {see}")
        return paired(values(self, metric), setting, baseline, see)

    def best_lr(self, setting: str, lr: str = "lr", *, metric: str, lowest: bool = True) -> pd.DataFrame:
        """The learning rate with the best mean over seeds, for each value of a setting.

        A rate at which a run's metric is not finite loses. Where rates were tried with different seeds, the effect of the seeds
        is taken out by least squares.

        Args:
            setting: A setting of the runs, such as ``"power"``.
            lr: The setting that was tuned.
            metric: As in ``table``.
            lowest: Whether a smaller metric is better.

        Returns:
            One row a value: the setting, the best ``lr``, its ``mean``, ``sd`` and ``n``, and ``at_edge``: whether it is the
            smallest or largest that was tried, which is logged as a warning, too. Where every rate lost, ``lr`` is None.

        Raises:
            ValueError: As ``table``, or if a rate is not a number.
            InputError: As ``table``.
        """
        return best(values(self, metric), setting, lr, lowest=lowest)

    def plot_against(self, setting: str, metrics: str | Sequence[str], *, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw the end of training against a setting: each run, and the mean over seeds in its 95 % interval.

        Args:
            setting: A setting of the runs, such as ``"power"``.
            metrics: One or several, as in ``table``; each gets a panel.
            ax: Where to draw: as many matplotlib axes as there are metrics. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: As ``table``, or if ``ax`` holds too few axes.
            InputError: As ``table``.
        """
        from htsr import plots

        names = [metrics] if isinstance(metrics, str) else metrics
        by_run = {metric: values(self, metric) for metric in names}
        tables = {metric: (by_setting(found, [setting]), found) for metric, found in by_run.items()}
        return plots.figure_of(plots.plot_means_against(tables, setting, ax=ax))

    def _told(self, label: str, setting: str) -> object:
        """Return a setting of a run, or raise a ``ValueError``."""
        settings = self[label].settings
        if setting not in settings:
            raise ValueError(
                f"expected every run to tell {setting!r}, but {label!r} tells {', '.join(settings) or 'none'}"
            )
        return settings[setting]

    def _table(self) -> pd.DataFrame:
        """Return the summary for people."""
        return self.summary().rename(columns=visible).map(lambda cell: visible(cell) if isinstance(cell, str) else cell)

    def plot(self, *metrics: str, by: str | None = None, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw metrics or recorded scalars against the step: a panel for each metric, a line for each run or its seeds.

        Args:
            *metrics: Numeric columns of ``details``, of which the median over layers is drawn with quartiles, or names of
                recorded scalars; by default alpha and stable rank.
            by: A setting of the runs, such as ``"power"``: runs that share its value, several seeds for instance, become one
                line, their mean, in a band from the lowest to the highest. By default, runs that differ in their seed alone do
                so, unless you named the runs; with ``"run"`` each run has its line.
            ax: Where to draw: as many matplotlib axes as there are metrics. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If no run has one of the metrics, a run does not tell the setting, or ``ax`` holds too few axes.
        """
        from htsr import plots

        return plots.figure_of(plots.plot_runs_over_steps(self, metrics or ("alpha", "stable_rank"), by=by, ax=ax))

    def save(self, path: str | Path) -> Path:
        """Write the runs.

        Args:
            path: The file to write. The suffix picks the format: ``.html`` is one interactive page of all runs, ``.json``
                settings and summary, ``.csv`` and ``.parquet`` the summary.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these, ``.parquet`` is asked for without pyarrow (``htsr[parquet]``), or
                ``path`` asks for a page and no run has a capture.
        """
        from htsr.report.save import save_runs

        return save_runs(self, Path(path))

    def _page(self) -> str:
        from htsr.report.pages import runs_page

        return runs_page(self)

    def __getitem__(self, label: str) -> History:
        return self._histories[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._histories)

    def __len__(self) -> int:
        return len(self._histories)

    def __repr__(self) -> str:
        return f"{len(self)} runs\n{self._table().to_string(index=False, float_format='{:.4g}'.format)}"

    def _repr_html_(self) -> str:
        table = self._table().to_html(index=False, float_format="{:.4g}".format, border=0, na_rep="")
        return f"<p>{escape(f'{len(self)} runs')}</p>{table}"


def open_runs(run_dirs: str | Path | Iterable[str | Path] | Mapping[str, str | Path]) -> Runs:
    """Return the runs that ``History.load_many`` is asked for."""
    if isinstance(run_dirs, str | Path):
        parent = Path(run_dirs)
        if not parent.is_dir():
            raise FileNotFoundError(f"{parent}: no such directory")
        run_dirs = [parent] if (parent / ABOUT).exists() else sorted(_run_dirs_inside(parent))
        if not run_dirs:
            raise InputError(
                f"{parent}: expected a directory of run directories of htsr.Monitor, found no {ABOUT} beside a folder "
                f"{CAPTURES} in it or in folders inside it"
            )
    named = isinstance(run_dirs, Mapping)
    if isinstance(run_dirs, Mapping):
        labelled = {str(label): Path(path) for label, path in run_dirs.items()}
    else:
        paths = [Path(path) for path in run_dirs]
        labelled = dict(zip(distinct_ends(paths), paths, strict=True))
    if not labelled:
        raise InputError("expected at least one run directory, got none")
    return Runs({label: History(path) for label, path in labelled.items()}, named)


def _run_dirs_inside(parent: Path) -> Iterator[Path]:
    """Yield the run directories in a directory and in the folders inside it, hidden ones aside; links are followed once."""
    seen = set()
    for directory, folders, files in os.walk(parent, followlinks=True):
        real = os.path.realpath(directory)
        is_run = ABOUT in files and CAPTURES in folders
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [] if is_run else sorted(name for name in folders if not name.startswith("."))
        if is_run:
            yield Path(directory)
