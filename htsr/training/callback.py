"""What the callbacks for Trainer and Lightning share: one Monitor for each training."""

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from htsr.audit.conditions import Condition
from htsr.training.arguments import check_arguments
from htsr.training.monitor import Monitor
from htsr.training.watching import Action, Watched

logger = logging.getLogger(__name__)


class MonitorOfTraining:
    """Makes a Monitor for each training of a framework, with the options and the conditions that its callback got.

    Attributes:
        monitor: The monitor of the training, None before one has begun; of several trainings, that of the last.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.monitor: Monitor | None = None
        self._options = dict(options)
        self._conditions: list[tuple[str | Condition, str | Action, bool]] = []
        _check_options(self._options)

    def on(self, condition: str | Condition, action: str | Action, *, every_time: bool = False) -> None:
        """Do something when a condition comes true; ``"stop"`` ends the training.

        Args:
            condition: As for ``Monitor.on``.
            action: As for ``Monitor.on``.
            every_time: As for ``Monitor.on``.
        """
        Watched.of(condition, action, every_time)  # names a mistake now, not when the training begins
        self._conditions.append((condition, action, every_time))
        if self.monitor is not None:
            self.monitor.on(condition, action, every_time=every_time)

    def _begin(
        self, model: nn.Module, optimizers: Optimizer | Iterable[Optimizer], defaults: Mapping[str, object]
    ) -> None:
        """Make the monitor, after closing that of a training which an exception ended; survive a directory that fails."""
        self._end()
        self.monitor = None
        try:
            self.monitor = Monitor(model, optimizers, **{**defaults, **self._options})
        except OSError:
            logger.exception("could not open the run directory; the training goes on without a Monitor")
            return
        for condition, action, every_time in self._conditions:
            self.monitor.on(condition, action, every_time=every_time)

    def _record(self, logged: Mapping[str, Any]) -> None:
        """Record the numbers that the framework logs, under the names that it gives them."""
        if self.monitor is not None:
            self.monitor.record(**{str(name): value for name, value in logged.items() if name != "step"})

    def _end(self) -> None:
        if self.monitor is not None:
            self.monitor.close()


def _check_options(options: Mapping[str, Any]) -> None:
    """Name a mistake in a Monitor's options when somebody makes the callback, before any training begins."""
    given = inspect.signature(Monitor).bind(nn.Module(), **options)
    given.apply_defaults()
    check_arguments(**{name: given.arguments[name] for name in inspect.signature(check_arguments).parameters})
