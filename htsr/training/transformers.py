"""A callback that watches a model which the ``Trainer`` of transformers trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as err:
    raise ImportError("transformers is not installed: pip install 'htsr[transformers]'") from err

from htsr.training.monitor import Monitor


class HTSRCallback(TrainerCallback):
    """Captures spectra while a ``Trainer`` trains.

    The step hook of the optimizer, inside accelerate's wrapper, counts the steps. A training that is resumed from a checkpoint
    goes on in its run directory. The callback records what the Trainer logs (loss, ...) with the spectra.

    Args:
        trainer: The Trainer whose ``log`` gets the metrics and passes them on to its history and to all trackers in its
            ``report_to``. Without a trainer and without ``log``, only the run directory keeps the metrics. You may set the
            attribute ``trainer`` later.
        **options: As for ``htsr.Monitor``; ``run_dir`` is by default ``output_dir/htsr``.

    Attributes:
        monitor: The monitor of the training, None before one has begun; of several trainings, that of the last.

    Example:
        ``callback = HTSRCallback(every=100)``, ``trainer = Trainer(..., callbacks=[callback])``, ``callback.trainer = trainer``.
    """

    def __init__(self, trainer: Trainer | None = None, **options: Any) -> None:
        self.trainer = trainer
        self.monitor: Monitor | None = None
        self._options = options
        self._conditions: list[tuple[Any, Any, bool]] = []
        self._logging = False
        self._waiting: list[
            tuple[Mapping[str, float], int]
        ] = []  # metrics of steps that the Trainer has not counted yet

    def on(self, condition: Any, action: Any, *, every_time: bool = False) -> None:
        """Do something when a condition comes true; ``"stop"`` ends the training.

        Args:
            condition: As for ``Monitor.on``.
            action: As for ``Monitor.on``.
            every_time: As for ``Monitor.on``.
        """
        self._conditions.append((condition, action, every_time))
        if self.monitor is not None:
            self.monitor.on(condition, action, every_time=every_time)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the monitor."""
        options: dict[str, Any] = {"run_dir": Path(args.output_dir or ".") / "htsr", "first_step": state.global_step}
        options |= self._options
        if self.trainer is not None:
            options.setdefault("log", self._log)
        self.monitor = Monitor(kwargs["model"], kwargs["optimizer"], **options)
        for condition, action, every_time in self._conditions:
            self.monitor.on(condition, action, every_time=every_time)
        self._log_waiting_metrics()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the captures, and stop the training if a condition asked for it."""
        asked = control.should_log
        self._log_waiting_metrics()
        control.should_log = asked  # logging here must not cancel what the Trainer is about to log
        if self.monitor is not None and self.monitor.should_stop:
            control.should_training_stop = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record what the Trainer logs."""
        if self.monitor is not None and not self._logging:
            logs: Mapping[str, object] = kwargs.get("logs") or {}
            numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
            self.monitor.record(**{key: value for key, value in numbers.items() if key != "step"})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Capture the last step and remove the optimizer's hooks."""
        if self.monitor is not None:
            self.monitor.close()
            self._log_waiting_metrics()

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        self._waiting.append((metrics, step))

    def _log_waiting_metrics(self) -> None:
        """Log through the Trainer, which logs under its own step and counts it later than the optimizer's hook does."""
        waiting, self._waiting = self._waiting, []
        for metrics, step in waiting:
            assert self.trainer is not None
            assert self.monitor is not None
            self._logging = True
            with self.monitor.surviving("log", step):
                self.trainer.log(dict(metrics))
            self._logging = False
