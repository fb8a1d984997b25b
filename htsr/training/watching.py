"""Conditions on captures, and the actions to take when they come true."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from htsr.audit.columns import HISTORY_COLUMNS, PREVIOUS_PHASE
from htsr.audit.conditions import Condition, Verdict
from htsr.audit.table import details_frame

if TYPE_CHECKING:
    from htsr.training.monitor import Monitor

logger = logging.getLogger(__name__)

Action = Callable[["Monitor", Verdict], object]


@dataclass
class Watched:
    """A condition on captures, and the action to take when it comes true, or at every capture at which it holds."""

    condition: Condition
    action: Action
    every_time: bool
    _held: frozenset[str] | None = field(default=None, repr=False)  # the layers it held for; None where it did not hold

    @classmethod
    def of(cls, condition: str | Condition, action: str | Action, every_time: bool) -> "Watched":
        """Return what ``Monitor.on`` asks for; refuse a condition that could never be judged."""
        if not isinstance(condition, str | Condition):
            raise TypeError(f"expected a condition such as 'median(alpha) < 2', got {type(condition).__name__}")
        condition = Condition(condition) if isinstance(condition, str) else condition
        condition.check_columns(details_frame([], (*HISTORY_COLUMNS, PREVIOUS_PHASE)))
        return cls(condition, named_action(action), every_time or PREVIOUS_PHASE.name in condition.text)

    def judge(self, table: pd.DataFrame) -> Verdict | None:
        """Return the verdict on the rows of a capture, with ``previous_phase``, if it calls for the action."""
        verdict = self.condition.check(table)
        before, self._held = self._held, frozenset(verdict.names) if verdict else None
        is_new = self._held is not None and (before is None or not self._held <= before)
        return verdict if verdict and (is_new or self.every_time) else None


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
