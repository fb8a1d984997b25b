"""Who hears of a capture: the tracker, and the actions of conditions that came true."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from htsr.audit.conditions import Condition
from htsr.text import escaped
from htsr.training.failures import Failures
from htsr.training.store.capture import WEIGHTS, Capture
from htsr.training.store.tables import rows_frame
from htsr.training.store.writer import NoWriter, RunWriter
from htsr.training.trackers import tags
from htsr.training.watching import Action, Watched, refuse_uncaptured

if TYPE_CHECKING:
    from htsr.training.monitor import Monitor

logger = logging.getLogger(__name__)

Log = Callable[[Mapping[str, float], int], object]


class Reporter:
    """Logs each capture and judges the conditions on it.

    ``log`` is None where another rank logs. It gets medians, and the metrics of the layers in ``log_layers``, None meaning all.
    """

    def __init__(
        self, log: Log | None, log_layers: Collection[str] | None, writer: RunWriter | NoWriter, failures: Failures
    ) -> None:
        self._log, self._log_layers = log, log_layers
        self._writer, self._failures = writer, failures
        self._watched: list[Watched] = []
        self._scalars: dict[str, float] = {}  # the last recorded value of each
        self._phases: dict[str, str] = {}  # of each layer at the capture before

    def watch(
        self, condition: str | Condition, action: str | Action, every_time: bool, captured: Collection[str]
    ) -> None:
        """Judge a condition from now on; refuse one that could never be judged on the quantities that are captured."""
        watched = Watched.of(condition, action, every_time, self._scalars)
        refuse_uncaptured(watched.condition, captured)
        self._watched.append(watched)

    def recorded(self, step: int, scalars: Mapping[str, float], monitor: "Monitor") -> None:
        """Remember scalars, and judge the conditions that name some of them and no column."""
        self._scalars.update(scalars)
        for watched in self._watched:
            if watched.of_scalars and not watched.scalars.isdisjoint(scalars):
                self._judge(watched, None, step, monitor)

    def finish(self, step: int) -> None:
        """Tell of conditions that nobody could judge, since nobody recorded their scalars."""
        for watched in self._watched:
            missing = watched.scalars - self._scalars.keys()
            if missing:
                known = ", ".join(map(repr, self._scalars)) or "nothing"
                message = (
                    f"{watched.condition.text!r} was never judged: expected record({sorted(missing)[0]}=...) during the "
                    f"training, and {known} was recorded"
                )
                logger.warning("%s", escaped(message))
                self._writer.event(step, "condition", message)

    def report(self, capture: Capture, monitor: "Monitor") -> None:
        """Log a capture and take the actions that it calls for, on the training's thread; survive what fails."""
        with self._failures.surviving("capture", capture.step):
            table = rows_frame([capture])
            if self._log is not None:
                with self._failures.surviving("log", capture.step):
                    self._log(tags(table, capture.groups, self._log_layers), capture.step)
                    if hasattr(self._log, "histograms"):
                        self._log.histograms(capture.spectra, capture.step)
            quantities = list(table["quantity"].unique())
            judged = table[table["quantity"] == (WEIGHTS if WEIGHTS in quantities or not quantities else quantities[0])]
            judged = self._with_previous_phase(judged)
            for watched in self._watched:
                if not watched.of_scalars:
                    self._judge(watched, judged, capture.step, monitor)

    def _judge(self, watched: Watched, table: pd.DataFrame | None, step: int, monitor: "Monitor") -> None:
        """Take the action of a condition if it calls for it; survive what fails."""
        with self._failures.surviving("action", step):
            verdict = watched.judge(table, self._scalars)
            if verdict is not None:
                self._writer.event(step, "condition", str(verdict))
                watched.action(monitor, verdict)

    def _with_previous_phase(self, weights: pd.DataFrame) -> pd.DataFrame:
        """Return the rows with a column ``previous_phase``, and remember their phases for the next capture."""
        pairs = list(zip(weights["name"], weights["phase"], strict=True))
        previous = [self._phases.get(name, phase) for name, phase in pairs]  # at the first capture no phase changed
        self._phases = dict(pairs)
        return weights.assign(previous_phase=pd.Series(previous, weights.index, dtype="str"))
