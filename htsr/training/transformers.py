"""A callback that watches a model which the ``Trainer`` of transformers trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as err:
    raise ImportError("transformers is not installed: pip install 'htsr[transformers]'") from err

from htsr.training.callback import MonitorOfTraining


class HTSRCallback(MonitorOfTraining, TrainerCallback):
    """Captures spectra while a ``Trainer`` trains.

    The step hook of the optimizer, inside accelerate's wrapper, counts the steps. A training that is resumed from a checkpoint
    goes on in its run directory; another ``train()`` from the start, as in a hyperparameter search or after
    ``auto_find_batch_size`` chose a smaller batch, goes on in a directory beside it. The callback records what the Trainer logs
    (loss, ...) with the spectra.

    Args:
        trainer: The Trainer whose ``log`` gets the metrics and passes them on to its history and to all trackers in its
            ``report_to``. Without a trainer and without ``log``, only the run directory keeps the metrics. You may set the
            attribute ``trainer`` later.
        **options: As for ``htsr.Monitor``; ``run_dir`` is by default ``output_dir/htsr``.

    Attributes:
        monitor: The monitor of the training, None before one has begun; of several trainings, that of the last.

    Raises:
        TypeError: If an option is unknown or has the wrong type.
        ValueError: If an option is out of range.

    Example:
        ``callback = HTSRCallback(every=100)``, ``trainer = Trainer(..., callbacks=[callback])``, ``callback.trainer = trainer``.
    """

    def __init__(self, trainer: "Trainer | None" = None, **options: Any) -> None:
        super().__init__(options)
        self.trainer = trainer
        self._logging = False
        self._waiting: list[
            tuple[Mapping[str, float], int]
        ] = []  # metrics of steps that the Trainer has not counted yet

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the monitor."""
        defaults: dict[str, object] = {
            "run_dir": Path(args.output_dir or ".") / "htsr",
            "first_step": state.global_step,
        }
        if self.trainer is not None:
            defaults["log"] = self._log
        self._waiting = []  # of a training that an exception ended
        self._begin(kwargs["model"], kwargs["optimizer"], defaults)
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
        if not self._logging:
            logs: Mapping[str, object] = kwargs.get("logs") or {}
            self._record({name: value for name, value in logs.items() if isinstance(value, int | float)})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Capture the last step and remove the optimizer's hooks."""
        self._end()
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
