"""A callback that watches a model which Lightning's ``Trainer`` trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
except ImportError as err:
    raise ImportError("lightning is not installed: pip install 'htsr[lightning]'") from err

from htsr.training.callback import MonitorOfTraining


class HTSRCallback(MonitorOfTraining, Callback):
    """Captures spectra while a Lightning ``Trainer`` trains.

    The optimizers' step hooks count the steps, so the count is right when batches are accumulated, and ``Monitor`` says what
    counts as a step where there are several optimizers. A training that is resumed from a checkpoint goes on in its run
    directory; another ``fit`` from the start goes on in a directory beside it. Metrics go to all of the trainer's loggers,
    unless you pass ``log``. The callback records what the training logs (loss, ...) with the spectra.

    Args:
        optimizer: The index of the optimizer to watch; by default all of them.
        **options: As for ``htsr.Monitor``; ``run_dir`` is by default ``default_root_dir/htsr``.

    Attributes:
        monitor: The monitor of the training, None before one has begun; of several trainings, that of the last.

    Raises:
        TypeError: If an option is unknown or has the wrong type.
        ValueError: If an option is out of range.
    """

    def __init__(self, optimizer: int | None = None, **options: Any) -> None:
        super().__init__(options)
        self._optimizer = optimizer
        self._recorded = -1
        self._loaded_step: int | None = None  # from the checkpoint

    @property
    def state_key(self) -> str:
        """The name of this callback's state in a checkpoint."""
        return self._generate_state_key(optimizer=self._optimizer, run_dir=str(self._options.get("run_dir")))

    def state_dict(self) -> dict[str, Any]:
        """The number of training steps, which Lightning's ``global_step`` is not where there are several optimizers."""
        return {} if self.monitor is None else {"step": self.monitor.step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the number of training steps from a checkpoint."""
        self._loaded_step = state_dict.get("step")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the monitor."""

        def log(metrics: Mapping[str, float], step: int) -> None:
            for tracker in trainer.loggers:
                tracker.log_metrics(dict(metrics), step=step)

        watched = trainer.optimizers if self._optimizer is None else [trainer.optimizers[self._optimizer]]
        defaults = {
            "run_dir": Path(trainer.default_root_dir) / "htsr",
            "first_step": self._steps_before(trainer),
            "log": log,
        }
        self._recorded = -1
        self._begin(pl_module, watched, defaults)

    def _steps_before(self, trainer: Trainer) -> int:
        """Return the training steps before this ``fit``: by the checkpoint, by the monitor before, or by Lightning's count."""
        loaded, self._loaded_step = self._loaded_step, None
        if trainer.global_step == 0:
            return 0
        if loaded is not None:
            return loaded
        if self.monitor is not None:  # the same trainer fits once more
            return self.monitor.step_count
        return trainer.global_step // len(trainer.optimizers)  # Lightning counts each optimizer's steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record what the training logged, once a step, and stop the trainer if a condition asked for it."""
        if self.monitor is None:
            return
        if self.monitor.step_count != self._recorded:
            self._recorded = self.monitor.step_count
            self._record(trainer.logged_metrics)
        if self.monitor.should_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Capture the last step and remove the optimizers' hooks."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do the same when an exception ends the training."""
        self._end()
