"""Conditions on captures and recorded scalars, and the actions to take when they come true."""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from htsr.audit.columns import HISTORY_COLUMNS, PREVIOUS_PHASE
from htsr.audit.conditions import Condition, Verdict
from htsr.audit.step_columns import MEASURED_STEP
from htsr.audit.table import details_frame
from htsr.errors import InputError

if TYPE_CHECKING:
    from htsr.training.monitor import Monitor

logger = logging.getLogger(__name__)

# Names with fewer characters are so close to each other that a slip cannot be told from another name: lr and rf.
SHORTEST_WITH_SLIPS = 4

Action = Callable[["Monitor", Verdict], object]


@dataclass
class Watched:
    """A condition, and the action to take when it comes true, or every time that it is found to hold.

    ``scalars`` are the names in the condition that are no columns, so that somebody must record them.
    """

    condition: Condition
    action: Action
    every_time: bool
    scalars: frozenset[str] = frozenset()
    _held: frozenset[str] | None = field(default=None, repr=False)  # the layers it held for; None where it did not hold

    @classmethod
    def of(
        cls, condition: str | Condition, action: str | Action, every_time: bool, recorded: Collection[str] = ()
    ) -> "Watched":
        """Return what ``Monitor.on`` asks for; refuse a condition that could never be judged.

        ``recorded`` names scalars that were recorded before, which no one can have mistyped.
        """
        if not isinstance(condition, str | Condition):
            raise TypeError(f"expected a condition such as 'median(alpha) < 2', got {type(condition).__name__}")
        condition = Condition(condition) if isinstance(condition, str) else condition
        table = details_frame([], (*HISTORY_COLUMNS, PREVIOUS_PHASE))
        scalars = frozenset(name for name in condition.columns if name not in table)
        for name in sorted(scalars.difference(recorded)):
            _refuse_misspelt(name, list(table), condition.text)
        condition.check(table, dict.fromkeys(scalars, math.nan))
        return cls(condition, named_action(action), every_time or PREVIOUS_PHASE.name in condition.text, scalars)

    @property
    def of_scalars(self) -> bool:
        """Whether it names recorded scalars only, so that it can be judged whenever one of them is recorded."""
        return self.scalars.issuperset(self.condition.columns)

    def judge(self, table: pd.DataFrame | None, recorded: Mapping[str, float]) -> Verdict | None:
        """Return the verdict if it calls for the action.

        ``table`` has the rows of a capture, with ``previous_phase``; None if the condition is of scalars only.
        """
        scalars = {name: recorded.get(name, math.nan) for name in self.scalars}
        verdict = self.condition.check_scalars(scalars) if table is None else self.condition.check(table, scalars)
        before, self._held = self._held, frozenset(verdict.names) if verdict else None
        is_new = self._held is not None and (before is None or not self._held <= before)
        return verdict if verdict and (is_new or self.every_time) else None


def refuse_uncaptured(condition: Condition, captured: Collection[str]) -> None:
    """Raise ``InputError`` for a condition on columns of updates where these are not captured."""
    for column in MEASURED_STEP:
        if column.name in condition.columns and "updates" not in captured:
            raise InputError(
                f'{condition.text!r}: {column.name} needs updates: expected Monitor(..., optimizer, capture=("updates", ...)), '
                f"got capture={tuple(captured)}"
            )


def _refuse_misspelt(name: str, columns: Sequence[str], text: str) -> None:
    """Raise ``InputError`` for a name that looks like a column's with a slip in it rather than like that of a scalar."""
    for column in columns:
        slips = _distance(name, column)
        if len(name) >= SHORTEST_WITH_SLIPS and (slips == 1 or (slips == 2 and name[0] == column[0])):
            raise InputError(
                f"{text!r}: there is no column {name!r}: did you mean {column}? If {name} is a scalar of yours, record it "
                "before on()"
            )


def _distance(a: str, b: str) -> int:
    """Return how many characters must be added, left out or replaced to make one text the other (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def named_action(action: str | Action) -> Action:
    """Return a function as it is, and the function that ``"stop"`` or ``"warn"`` names."""
    if callable(action):
        return action
    if not isinstance(action, str):
        raise TypeError(f"expected an action's name or a function, got {type(action).__name__}")
    if action not in _NAMED:
        raise ValueError(f"expected action={' or '.join(map(repr, _NAMED))} or a function, got {action!r}")
    return _NAMED[action]


def _stop(monitor: "Monitor", verdict: Verdict) -> None:
    logger.warning("step %d: %s; asking the training to stop", monitor.step_count, verdict)
    monitor.should_stop = True


def _warn(monitor: "Monitor", verdict: Verdict) -> None:
    logger.warning("step %d: %s", monitor.step_count, verdict)


_NAMED: dict[str, Action] = {"stop": _stop, "warn": _warn}
