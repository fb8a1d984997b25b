"""Whether a step may be captured."""

import math

from htsr.training.budget import Budget
from htsr.training.failures import Failures
from htsr.training.ranks import Ranks
from htsr.training.schedules import CaptureSchedule
from htsr.training.store.writer import NoWriter, RunWriter
from htsr.training.worker import Worker


class Permission:
    """Lets a step be captured if the schedule asks for it and the budget, the ranks and the background thread have room.

    ``announced`` says that the user knows the steps of the schedule, so that an event must explain each step that the budget
    leaves out. Without it the schedule is only the rhythm at which the budget is asked.
    """

    def __init__(
        self,
        schedule: CaptureSchedule,
        budget: Budget,
        ranks: Ranks | None,
        worker: Worker | None,
        writer: RunWriter | NoWriter,
        failures: Failures,
        *,
        announced: bool,
        first_step: int,
    ) -> None:
        self._schedule, self._announced = schedule, announced
        self._budget, self._ranks, self._worker = budget, ranks, worker
        self._writer, self._failures = writer, failures
        self._first_step = first_step
        self._next_question = first_step + 1  # the step at which the ranks next ask rank 0 about the budget

    def to_capture(self, step: int) -> bool:
        """Return whether to capture a step; if so, the budget counts what is spent from now on as the capture's cost."""
        if self._is_rank_missing:
            return False
        due = False
        with self._failures.surviving("schedule", step):
            due = bool(self._schedule(step))
        if not due:
            return False
        if not self.has_room(step):
            if self._announced:
                self._writer.event(step, "skipped", f"the budget, {self._budget.share:.2%} of wall time, is spent")
            return False
        if self._worker is not None and self._worker.is_full:
            self._writer.event(
                step, "skipped", f"{self._worker.max_waiting} captures already wait for the background thread"
            )
            return False
        self._budget.begin()
        return True

    def has_room(self, step: int) -> bool:
        """Return whether another capture that costs as much as the last one fits into the budget."""
        if self._is_rank_missing:
            return False
        if self._budget.share is None:
            return True
        missing = self._budget.missing()
        if self._ranks is None:
            return missing <= 0 and (self._worker is None or self._worker.pending == 0)
        if step < self._next_question:
            return False
        allowed = False
        # Clocks differ, so rank 0 decides for all, and names the step at which they ask again.
        with self._failures.surviving("agreement", step):
            pace = self._budget.elapsed / max(1, step - self._first_step)
            answers = self._ranks.share((missing <= 0, step + max(1, math.ceil(missing / pace))))
            allowed, self._next_question = answers[0]
        return allowed

    @property
    def _is_rank_missing(self) -> bool:
        """Return whether another rank has not come before, so that a capture would only wait for it again."""
        return self._ranks is not None and self._ranks.lost
