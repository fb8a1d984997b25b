"""Captures: a snapshot, its analysis, and the file that keeps it."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import joblib  # noqa: F401  # the last capture is analysed as Python ends, when a library with threads can load no more
from torch.optim import Optimizer

from htsr.audit.analysis import analyze
from htsr.audit.row import Row, captured_row, with_distances, with_step
from htsr.audit.table import shortened
from htsr.spectra.spectrum import Spectrum
from htsr.spectra.threads import one_thread
from htsr.training.budget import Budget
from htsr.training.failures import Failures
from htsr.training.ranks import Ranks
from htsr.training.snapshot import Camera, Snapshot
from htsr.training.store.capture import Capture
from htsr.training.store.writer import NoWriter, RunWriter
from htsr.training.worker import Worker

logger = logging.getLogger(__name__)

# Its jobs return the capture, or None if it failed, and the seconds that it took.
CaptureWorker = Worker[tuple[Capture | None, float]]


class Capturer:
    """Takes, analyses and writes captures, here, on all ranks, or on the background thread.

    ``finished`` hands the written captures over on the training's thread. ``options`` are those of ``analyze``.
    ``last_step`` is the step of the capture that was handed over last, and ``count`` the number of them.
    """

    def __init__(
        self,
        camera: Camera,
        budget: Budget,
        ranks: Ranks | None,
        worker: CaptureWorker | None,
        writer: RunWriter | NoWriter,
        failures: Failures,
        *,
        first_step: int,
        options: dict[str, Any],
    ) -> None:
        self._camera, self._options = camera, options
        self._budget, self._ranks, self._worker = budget, ranks, worker
        self._writer, self._failures = writer, failures
        self._first_step = first_step
        self.last_step: int | None = None
        self.count = 0
        self._written: deque[Capture] = deque()  # and not yet handed over
        self._reported: set[tuple[str, str]] = set()
        self._unstepped: list[str] = []

    def before_step(self, optimizer: Optimizer, *, gradients: bool) -> None:
        """Keep what an optimizer is about to change; ``gradients`` says whether those of the step are there already."""
        with self._budget.spending():
            self._camera.keep_parameters(optimizer)
            if gradients:
                self._camera.keep_gradients(optimizer, self._dealt_layers())

    def after_step(self, optimizer: Optimizer) -> None:
        """Keep the gradients that the optimizer's closure computed during its step."""
        with self._budget.spending():
            self._camera.keep_gradients(optimizer, self._dealt_layers())

    def forget(self) -> None:
        """Forget what was kept of a step that will not be captured."""
        self._camera.forget()

    def capture(self, step: int, *, between_steps: bool = False) -> None:
        """Capture a step now; the background thread, where there is one, analyses and writes it later."""
        with self._budget.spending():
            self.report_unstepped(step)
            snapshot = self._camera.shoot(self._dealt_layers(), between_steps)
            if step > self._first_step:  # before the first step nothing but weights can be expected
                self._report_missing(snapshot, step)
            if self._worker is None:
                self._written.append(self._analyse_and_write(snapshot, step))
            else:
                self._worker.submit(partial(self._in_background, snapshot, step))

    def finished(self) -> Iterator[Capture]:
        """Yield the captures that were written since the last call, in order."""
        self._collect()
        while self._written:
            capture = self._written.popleft()
            self.last_step = capture.step
            self.count += 1
            yield capture

    def finish(self) -> None:
        """Forget what ``before_step`` kept and end the background thread; later captures are analysed at once."""
        self._camera.forget()
        if self._worker is not None:
            self._worker.finish()
            self._collect()
            self._worker = None

    def _collect(self) -> None:
        """Take back what the background thread has done: its captures, and the time that they took."""
        if self._worker is not None:
            for capture, seconds in self._worker.collect():
                self._budget.spent += seconds
                if capture is not None:
                    self._written.append(capture)

    def _dealt_layers(self) -> set[str] | None:
        """Wait for all ranks and return the names of the layers dealt to this one; None if there is one process only."""
        if self._ranks is None:
            return None
        self._ranks.call_roll()
        return self._ranks.deal(self._camera.inventory().layers)

    def _report_missing(self, snapshot: Snapshot, step: int) -> None:
        for quantity, reason in snapshot.missing.items():
            if (quantity, reason) not in self._reported:
                self._reported.add((quantity, reason))
                self._writer.event(step, "missing", f"{quantity} of no layer: {reason}")

    def report_unstepped(self, step: int) -> None:
        """Tell of the trainable parameters that no optimizer holds, again whenever they are others."""
        names = self._camera.unstepped()
        if names != self._unstepped:
            self._unstepped = names
            if names:
                message = (
                    f"the watched optimizers do not step {len(names)} of the model's parameters: {shortened(names)}"
                )
                logger.warning("step %d: %s", step, message)
                self._writer.event(step, "unstepped", message)

    def _in_background(self, snapshot: Snapshot, step: int) -> tuple[Capture | None, float]:
        """Do the background thread's job: return the capture, or None if it failed, and the seconds that it took."""
        start, capture = time.perf_counter(), None
        with self._failures.surviving("capture", step):
            capture = self._analyse_and_write(snapshot, step)
        return capture, time.perf_counter() - start

    def _analyse_and_write(self, snapshot: Snapshot, step: int) -> Capture:
        capture = self._analyse(snapshot, step)
        self._writer.save(capture)
        return capture

    def _analyse(self, snapshot: Snapshot, step: int) -> Capture:
        start = time.perf_counter()
        rows: list[Row] = []
        spectra: dict[tuple[str, str], Spectrum] = {}
        problem = None
        try:
            with one_thread():
                for quantity, inventory in snapshot.quantities.items():
                    analysis = analyze(inventory, progress=False, n_jobs=1, **self._options)
                    rows += [with_step(captured_row(layer.row, quantity), snapshot.steps) for layer in analysis]
                    spectra |= {(quantity, name): spectrum for name, spectrum in analysis.spectra.items()}
        except Exception as err:
            if self._ranks is None:
                raise
            problem = f"{type(err).__name__}: {err}"  # the other ranks wait in pool(), which raises it on all of them
        if self._ranks is not None:
            rows, spectra = self._ranks.pool(rows, spectra, problem, list(snapshot.quantities), snapshot.order)
        return Capture(
            step=step,
            seconds=self._budget.elapsed,
            analysis_seconds=time.perf_counter() - start,
            rows=[with_distances(row, snapshot.changes) for row in rows],
            spectra=spectra,
            groups=snapshot.groups,
        )
