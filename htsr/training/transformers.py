"""Watch a model that the ``Trainer`` of transformers trains."""

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

    The clock is the optimizer's step hook, under the wrapper of accelerate. A training resumed from a checkpoint goes on in its
    run directory. What the Trainer logs (loss, ...) is recorded beside the spectra.

    Args:
        trainer: Log through its ``log``, and so to its history and to all trackers in its ``report_to``. Without one, and without
            ``log``, metrics are in the run directory alone. It may be set later, as the attribute ``trainer``.
        **options: As for ``htsr.Monitor``; ``run_dir`` is ``output_dir/htsr`` by default.

    Attributes:
        monitor: The monitor, once the training has begun; the last one if there were several trainings.

    Example:
        ``callback = HTSRCallback(every=100)``, ``trainer = Trainer(..., callbacks=[callback])``, ``callback.trainer = trainer``.
    """

    def __init__(self, trainer: Trainer | None = None, **options: Any) -> None:
        self.trainer = trainer
        self.monitor: Monitor | None = None
        self._options = options
        self._conditions: list[tuple[Any, Any, bool]] = []
        self._logging = False
        self._waiting: list[tuple[Mapping[str, float], int]] = []  # metrics until the Trainer counts the step, too

    def on(self, condition: Any, action: Any, *, every_time: bool = False) -> None:
        """Do something when a condition comes true; see ``Monitor.on``. ``"stop"`` ends the training."""
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
        self._hand_on()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log what was captured, and pass on that a condition asked to stop."""
        asked = control.should_log
        self._hand_on()
        control.should_log = asked  # what was logged here is not what the Trainer is about to log
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
        """Capture the last step and let go of the optimizer."""
        if self.monitor is not None:
            self.monitor.close()
            self._hand_on()

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        self._waiting.append((metrics, step))

    def _hand_on(self) -> None:
        """The Trainer logs under its own step, which it raises after the optimizer's."""
        waiting, self._waiting = self._waiting, []
        for metrics, step in waiting:
            assert self.trainer is not None
            assert self.monitor is not None
            self._logging = True
            with self.monitor.surviving("log", step):
                self.trainer.log(dict(metrics))
            self._logging = False
