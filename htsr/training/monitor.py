"""Watch a model's spectra while it trains."""

import json
import logging
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr._version import __version__
from htsr.analysis import Analysis, analyze
from htsr.errors import InputError
from htsr.files import written_aside
from htsr.training.capture import Capture, capture_name
from htsr.training.history import ABOUT, CAPTURES, SCALARS, SCHEMA, History
from htsr.weights.select import Patterns

logger = logging.getLogger(__name__)

# Metrics that go to trackers, for each layer and as the median over layers.
LOGGED = ("alpha", "stable_rank", "log_spectral_norm")


class Monitor:
    """Captures the spectra of a model's weight matrices every few optimizer steps.

    The clock is the optimizer's own step hook, so gradient accumulation and steps that a loss scaler leaves out are
    counted right. The weights are captured before the first step, every ``every`` steps, and once more at ``close()``.
    After the constructor has returned, nothing that fails here stops the training: it is logged and listed in ``failed``.

    Args:
        model: The model. It is not changed.
        optimizer: Its optimizer, possibly wrapped by accelerate or Lightning. Without one, call ``step()`` after each
            of its steps.
        every: Optimizer steps between captures.
        run_dir: Where captures are kept, one file each, in a form that survives ``kill -9``. None keeps them in a
            temporary directory as long as the monitor or its history lives.
        log: Called as ``log(metrics, step)`` at each capture with tags such as ``htsr/alpha/<layer>`` and
            ``htsr/alpha/median``: ``wandb.log`` and most trackers' methods fit as they are.
        layers: Layers to watch, as in ``analyze``.
        skip: Layers to leave out, as in ``analyze``.
        first_step: The number of steps done before, for a run that is resumed into the same directory. Captures made
            again at the same step replace the old ones; later ones of the abandoned run are set aside.

    Attributes:
        step_count: Optimizer steps done.
        run_dir: The directory.
        history: The run, as a ``History``.
        failed: Step and message of each capture, record or call of ``log`` that failed.

    Raises:
        InputError: If ``run_dir`` already holds captures and ``first_step`` is 0, or ``layers`` match nothing.
        TypeError: If the model is no module, or the optimizer has no step hooks.
        ValueError: If ``every`` or ``first_step`` is out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(64, 32)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Monitor(model, optimizer, every=2) as monitor:
        ...     for _ in range(4):
        ...         loss = model(torch.randn(16, 64)).square().mean()
        ...         loss.backward()
        ...         optimizer.step()
        >>> monitor.history.steps
        [0, 2, 4]
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        every: int = 100,
        run_dir: str | Path | None = None,
        log: Callable[[Mapping[str, float], int], object] | None = None,
        layers: Patterns = None,
        skip: Patterns = None,
        first_step: int = 0,
    ) -> None:
        if not (isinstance(every, int) and isinstance(first_step, int) and every >= 1 and first_step >= 0):
            raise ValueError(f"expected whole numbers every >= 1 and first_step >= 0, got {every=}, {first_step=}")
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected a torch.nn.Module to watch, got {type(model).__name__}")
        self._model = model
        self._optimizer: Optimizer | None = getattr(optimizer, "optimizer", optimizer)
        if self._optimizer is not None and not hasattr(self._optimizer, "register_step_post_hook"):
            raise TypeError(f"expected a torch optimizer, or None and calls of step(), got {type(optimizer).__name__}")
        self._every, self._log = every, log
        self._layers, self._skip = layers, skip
        self.step_count = first_step
        self.failed: list[tuple[int, str]] = []
        self._last_capture: int | None = None
        self._started = time.perf_counter()

        first = self._look()  # before anything is written: what is wrong with the arguments comes out here
        self.run_dir = Path(tempfile.mkdtemp(prefix="htsr-run-") if run_dir is None else run_dir)
        self._prepare_directory()
        self.history = History(self.run_dir)
        if run_dir is None:
            weakref.finalize(self.history, shutil.rmtree, self.run_dir, ignore_errors=True)
        self._keep(first)
        self._hook = (
            self._optimizer.register_step_post_hook(lambda *_: self.step()) if self._optimizer is not None else None
        )

    def step(self) -> None:
        """Count one optimizer step; capture if it is time. Called by the hook where there is an optimizer."""
        self.step_count += 1
        if self.step_count % self._every == 0:
            self._try_capture()

    def record(self, **scalars: float) -> None:
        """Keep numbers of this step beside the spectra, for instance ``record(loss=loss.item())``.

        Args:
            **scalars: Name and value; the name ``step`` is taken. They are in ``History.scalars``.

        Raises:
            ValueError: If a scalar is called ``step``, or a value is not a number.
        """
        if "step" in scalars:
            raise ValueError("a scalar cannot be called 'step': it is kept under the monitor's own step")
        line = json.dumps({"step": self.step_count, **{name: float(value) for name, value in scalars.items()}})
        with self._surviving("record"), (self.run_dir / SCALARS).open("a") as file:
            file.write(f"\n{line}")  # a line that an earlier writer left unfinished ends here and spoils no other

    def close(self) -> None:
        """Capture the last step, unless it was, and let go of the optimizer."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self._last_capture != self.step_count:
            self._try_capture()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as err:  # whatever it is, hours of training must not end for it
            self.failed.append((self.step_count, f"{what}: {type(err).__name__}: {err}"))
            logger.exception("%s at step %d failed; the training goes on", what, self.step_count)

    def _try_capture(self) -> None:
        with self._surviving("capture"):
            self._keep(self._look())

    def _look(self) -> tuple[Analysis, float]:
        start = time.perf_counter()
        analysis = analyze(self._model, layers=self._layers, skip=self._skip, progress=False)
        return analysis, time.perf_counter() - start

    def _keep(self, look: tuple[Analysis, float]) -> None:
        analysis, analysis_seconds = look
        capture = Capture(
            step=self.step_count,
            seconds=time.perf_counter() - self._started,
            analysis_seconds=analysis_seconds,
            rows=[layer.row for layer in analysis],
            spectra=analysis.spectra,
            groups=[_settings(group) for group in self._optimizer.param_groups] if self._optimizer is not None else [],
        )
        capture.save(self.run_dir / CAPTURES / capture_name(self.step_count))
        self._last_capture = self.step_count
        if self._log is not None:
            with self._surviving("log"):
                self._log(_tags(analysis), self.step_count)

    def _prepare_directory(self) -> None:
        captures = self.run_dir / CAPTURES
        earlier = sorted(captures.glob("step-*.npz"))
        if earlier and self.step_count == 0:
            last = re.sub(r"\D", "", earlier[-1].stem).lstrip("0") or "0"
            raise InputError(
                f"{self.run_dir} holds {len(earlier)} captures of an earlier run, the last of step {last}: continue it "
                "with first_step=, or give this run a directory of its own"
            )
        captures.mkdir(parents=True, exist_ok=True)
        for part in earlier:
            if part.name > capture_name(self.step_count):
                part.rename(part.with_name(f"abandoned-{part.name}"))
        about = {
            "schema": SCHEMA,
            "htsr": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": type(self._model).__name__,
            "num_parameters": sum(p.numel() for p in self._model.parameters() if not nn.parameter.is_lazy(p)),
            "optimizer": type(self._optimizer).__name__ if self._optimizer is not None else None,
            "every": self._every,
        }
        if not (self.run_dir / ABOUT).exists():
            with written_aside(self.run_dir / ABOUT) as file:
                file.write(json.dumps(about, indent=2).encode())


def _settings(group: dict[str, Any]) -> dict[str, object]:
    """The settings of a parameter group that are numbers or words."""
    settings = {
        key: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value for key, value in group.items()
    }
    return {key: value for key, value in settings.items() if isinstance(value, int | float | str)}


def _tags(analysis: Analysis) -> dict[str, float]:
    details = analysis.details[analysis.details["tied_to"] == ""]
    metrics: dict[str, float] = {}
    for metric in LOGGED:
        values = pd.Series(details[metric].to_numpy(), index=details["name"]).dropna()
        metrics |= {f"htsr/{metric}/{name}": float(value) for name, value in values.items()}
        if len(values):
            metrics[f"htsr/{metric}/median"] = float(values.median())
    return metrics
