"""Acting on what is seen: a condition, and what to do when it comes true."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from htsr.audit.conditions import Condition, Verdict
from htsr.errors import InputError

if TYPE_CHECKING:
    from htsr.training.monitor import Monitor

logger = logging.getLogger(__name__)

Action = Callable[["Monitor", Verdict], object]


@dataclass
class Watched:
    """A condition on captures, and what to do when it comes true.

    Attributes:
        condition: The condition.
        action: Called with the monitor and the verdict.
        every_time: Act at every capture at which it holds, not only when it comes true, or comes true of another layer.
    """

    condition: Condition
    action: Action
    every_time: bool
    _held: frozenset[str] | None = field(default=None, repr=False)  # the layers it held for; None where it did not hold

    def look(self, table: pd.DataFrame) -> Verdict | None:
        """Judge a capture.

        Args:
            table: A row a layer, with ``previous_phase``.

        Returns:
            The verdict, if there is something to do.
        """
        verdict = self.condition.check(table)
        before, self._held = self._held, frozenset(verdict.names) if verdict else None
        news = self._held is not None and (before is None or not self._held <= before)
        return verdict if verdict and (news or self.every_time) else None


def named_action(action: str | Action) -> Action:
    """An action by its name.

    Args:
        action: ``"stop"``, ``"warn"``, or a function of the monitor and the verdict.

    Returns:
        The function.

    Raises:
        InputError: If it is neither.
    """
    if callable(action):
        return action
    if action not in _NAMED:
        raise InputError(f"expected action={' or '.join(map(repr, _NAMED))} or a function, got {action!r}")
    return _NAMED[action]


def _stop(monitor: "Monitor", verdict: Verdict) -> None:
    logger.warning("step %d: %s; asking the training to stop", monitor.step_count, verdict)
    monitor.should_stop = True


def _warn(monitor: "Monitor", verdict: Verdict) -> None:
    logger.warning("step %d: %s", monitor.step_count, verdict)


_NAMED: dict[str, Action] = {"stop": _stop, "warn": _warn}
