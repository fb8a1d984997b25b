"""A callback that watches a model which Lightning's ``Trainer`` trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
except ImportError as err:
    raise ImportError("lightning is not installed: pip install 'htsr[lightning]'") from err

from htsr.training.monitor import Monitor


class HTSRCallback(Callback):
    """Captures spectra while a Lightning ``Trainer`` trains.

    The optimizer's step hook counts the steps, so the count is right when batches are accumulated. A training that is resumed
    from a checkpoint goes on in its run directory. Metrics go to all of the trainer's loggers, unless you pass ``log``. The
    callback records what the training logs (loss, ...) with the spectra.

    Args:
        optimizer: The index of the optimizer to watch, if there are several.
        **options: As for ``htsr.Monitor``; ``run_dir`` is by default ``default_root_dir/htsr``.

    Attributes:
        monitor: The monitor of the training, None before one has begun; of several trainings, that of the last.
    """

    def __init__(self, optimizer: int = 0, **options: Any) -> None:
        self.monitor: Monitor | None = None
        self._optimizer, self._options = optimizer, options
        self._conditions: list[tuple[Any, Any, bool]] = []
        self._recorded = -1

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the monitor."""

        def log(metrics: Mapping[str, float], step: int) -> None:
            for tracker in trainer.loggers:
                tracker.log_metrics(dict(metrics), step=step)

        options: dict[str, Any] = {
            "run_dir": Path(trainer.default_root_dir) / "htsr",
            "first_step": trainer.global_step,
        }
        options |= {"log": log} | self._options
        self.monitor = Monitor(pl_module, trainer.optimizers[self._optimizer], **options)
        for condition, action, every_time in self._conditions:
            self.monitor.on(condition, action, every_time=every_time)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record what the training logged, once a step, and stop the trainer if a condition asked for it."""
        if self.monitor is None:
            return
        if self.monitor.step_count != self._recorded:
            self._recorded = self.monitor.step_count
            numbers = {key: float(value) for key, value in trainer.logged_metrics.items() if key != "step"}
            if numbers:
                self.monitor.record(**numbers)
        if self.monitor.should_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Capture the last step and remove the optimizer's hooks."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do the same when an exception ends the training."""
        if self.monitor is not None:
            self.monitor.close()
