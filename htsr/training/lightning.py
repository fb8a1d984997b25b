"""Watch a model that the ``Trainer`` of Lightning trains."""

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

    The clock is the optimizer's step hook, so accumulated batches are counted right. A training resumed from a checkpoint goes on
    in its run directory. Metrics go to all of the trainer's loggers, unless ``log`` is given; what the training logs is recorded
    beside the spectra.

    Args:
        optimizer: Which of the optimizers to watch, where there are several.
        **options: As for ``htsr.Monitor``; ``run_dir`` is ``default_root_dir/htsr`` by default.

    Attributes:
        monitor: The monitor, once the training has begun; the last one if there were several trainings.
    """

    def __init__(self, optimizer: int = 0, **options: Any) -> None:
        self.monitor: Monitor | None = None
        self._optimizer, self._options = optimizer, options
        self._conditions: list[tuple[Any, Any, bool]] = []
        self._recorded = -1

    def on(self, condition: Any, action: Any, *, every_time: bool = False) -> None:
        """Do something when a condition comes true; see ``Monitor.on``. ``"stop"`` ends the training."""
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
        """Record what was logged, once a step, and pass on that a condition asked to stop."""
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
        """Capture the last step and let go of the optimizer."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same, when the training breaks off."""
        if self.monitor is not None:
            self.monitor.close()
