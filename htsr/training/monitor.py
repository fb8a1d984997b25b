"""Watch a model's spectra while it trains."""

import logging
import math
import shutil
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr._version import __version__
from htsr.audit.analysis import analyze
from htsr.audit.columns import HISTORY_COLUMNS, PREVIOUS_PHASE
from htsr.audit.conditions import Condition
from htsr.audit.row import Row, captured_row, with_distances
from htsr.audit.table import details_frame
from htsr.errors import InputError
from htsr.spectra.spectrum import Spectrum
from htsr.spectra.threads import one_thread
from htsr.training.arguments import check_arguments, quantities_of, schedule_of
from htsr.training.budget import Budget
from htsr.training.ranks import Ranks, several
from htsr.training.schedules import Schedule
from htsr.training.snapshot import Camera, Snapshot
from htsr.training.store.capture import WEIGHTS, Capture
from htsr.training.store.files import SCHEMA
from htsr.training.store.history import History
from htsr.training.store.tables import rows_frame
from htsr.training.store.writer import RunWriter
from htsr.training.trackers import tags
from htsr.training.watching import Action, Watched, named_action
from htsr.training.worker import Worker
from htsr.weights.select import Patterns

logger = logging.getLogger(__name__)

# Captures that may wait for the background thread; each holds a copy of the watched layers.
WAITING = 2

Log = Callable[[Mapping[str, float], int], object]


class Monitor:
    """Captures the spectra of a model's weight matrices every few optimizer steps.

    The clock is the optimizer's own step hook, so gradient accumulation and steps that a loss scaler leaves out are
    counted right. The weights are captured before the first step, every ``every`` steps, and once more at ``close()``, which
    sees neither gradients nor updates, since it is no step.
    After the constructor has returned, nothing that fails here stops the training: it is logged and listed in ``failed``.
    The training itself is not touched: weights are bit for bit what they are without a monitor.

    Args:
        model: The model. It is not changed.
        optimizer: Its optimizer, possibly wrapped by accelerate or Lightning. Without one, call ``step()`` after each
            of its steps.
        every: Optimizer steps between captures, or a schedule, a function ``step -> bool`` such as
            ``htsr.training.log_spaced()``. By default 100; with a budget, whenever the budget allows.
        run_dir: Where captures are kept, one file each, in a form that survives ``kill -9``. None keeps them in a
            temporary directory as long as the monitor or its history lives.
        log: Called as ``log(metrics, step)`` at each capture with tags such as ``htsr/alpha/<layer>`` and
            ``htsr/alpha/median``: ``wandb.log`` and most trackers' methods fit as they are; ``htsr.training.trackers`` has
            some that also draw histograms. Called on the training's thread.
        layers: Layers to watch, as in ``analyze``.
        skip: Layers to leave out, as in ``analyze``.
        capture: What to look at: ``weights``, ``gradients``, ``momentum``, ``updates`` (the change that the last step made).
        budget: The share of wall time that monitoring may take, for instance 0.02. Captures then keep their distance by
            themselves: none is made until all the time spent, its own included, is within the budget. Time on the background
            thread counts in full. The first capture is always made.
        background: Copy the watched layers to main memory at a capture and analyse the copies on another thread, one core at
            a time; in one process only. At most two captures wait there; one that finds no place is skipped, and
            ``History.events`` says so.
        bootstrap: Resamples for the interval of alpha, as in ``analyze``; 0 leaves it out. 50 take some 0.01 s a layer.
        bulk: Compare with noise, as in ``analyze``.
        first_step: The number of steps done before, for a run that is resumed into the same directory. A capture of that
            very step stays; later ones of the abandoned run are set aside.
        raise_at_close: Let ``close()`` raise if something failed.
        timeout: Seconds that the ranks of a distributed training wait for each other at a capture. If one does not come, the
            others stop watching and go on.

    Attributes:
        step_count: Optimizer steps done.
        run_dir: The directory.
        should_stop: Whether a condition asked the training to stop; see ``on``.
        failed: Step and message of each capture, record, action or call of ``log`` that failed.

    Raises:
        InputError: If ``run_dir`` already holds captures and ``first_step`` is 0, or ``layers`` match nothing.
        TypeError: If the model is no module, or the optimizer has no step hooks.
        ValueError: If a number is out of range, or ``capture`` holds an unknown quantity.

    Notes:
        Distances, ``update_rms`` and updates need the parameters before and after a step: at a captured step they are copied
        once before it.

        Under DDP and FSDP2 every rank makes a Monitor. Layers are dealt out over the ranks for analysis, rank 0 writes and logs,
        conditions are judged on every rank alike.

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
        every: int | Schedule | None = None,
        run_dir: str | Path | None = None,
        log: Log | None = None,
        layers: Patterns = None,
        skip: Patterns = None,
        capture: Collection[str] = (WEIGHTS,),
        budget: float | None = None,
        background: bool = False,
        bootstrap: int = 50,
        bulk: bool = True,
        first_step: int = 0,
        raise_at_close: bool = False,
        timeout: float = 300.0,
    ) -> None:
        check_arguments(model, every, budget, bootstrap, first_step, timeout)
        quantities = quantities_of(capture)
        inner: Any = getattr(optimizer, "optimizer", optimizer)
        if inner is not None and not hasattr(inner, "register_step_post_hook"):
            raise TypeError(f"expected a torch optimizer, or None and calls of step(), got {type(optimizer).__name__}")
        if inner is None and {"momentum", "updates"} & set(quantities):
            raise InputError(f"{capture=}: momentum and updates need the optimizer, got none")
        if background and several():
            raise InputError(
                "background=True: expected one process; layers of a distributed training are dealt out instead"
            )
        self._model, self._optimizer = model, inner
        self._schedule = schedule_of(every, budget)
        self._promised = every is not None or budget is None  # the schedule's steps, not whatever the budget allows
        self._budget, self._log = Budget(budget), log
        self._options: dict[str, Any] = {"bootstrap": bootstrap, "bulk": bulk}
        self._watched: list[Watched] = []
        self._phases: dict[str, str] = {}
        self._raise_at_close = raise_at_close
        self.step_count = self._first_step = first_step
        self.should_stop = False
        self.failed: list[tuple[int, str]] = []
        self._errors: list[Exception] = []
        self._reported: set[tuple[str, str]] = set()
        self._planned: int | None = None  # the next step, if it is to be captured
        self._last_capture: int | None = None
        self._next_decision = first_step + 1  # the step at which the ranks next ask what the budget allows
        self._pending = 0  # captures that the background thread has not handed back
        self._done: deque[tuple[Capture | None, float]] = deque()
        self._closed = False
        self._camera = Camera(model, inner, layers, skip, quantities, copy=background)

        about = {
            "schema": SCHEMA,
            "htsr": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": type(model).__name__,
            "num_parameters": sum(p.numel() for p in model.parameters() if not nn.parameter.is_lazy(p)),
            "optimizer": type(inner).__name__ if inner is not None else None,
            "every": int(every) if isinstance(every, Integral) else getattr(every, "__name__", every and "schedule"),
            "budget": budget,
            "capture": list(quantities),
        }
        self._camera.inventory()  # before anything is written: what is wrong with the arguments comes out here
        self._ranks = Ranks(timeout) if several() else None
        self._writer, self.run_dir, held = self._open_directory(run_dir, about)
        self._history = History(self.run_dir) if self._writer is not None else None
        if run_dir is None and self._history is not None:
            weakref.finalize(self._history, shutil.rmtree, self.run_dir, ignore_errors=True)
        self._worker = Worker(WAITING) if background else None
        if held:
            self._last_capture = first_step
        else:
            self._capture()
        self._hooks = (
            [
                inner.register_step_pre_hook(lambda _, args, kwargs: self._before_step(_has_closure(args, kwargs))),
                inner.register_step_post_hook(lambda *_: self._after_step()),
            ]
            if inner is not None
            else []
        )

    @property
    def history(self) -> History:
        """The run, as a ``History``; on ranks other than 0 only where they see the directory."""
        if self._history is None:
            self._history = History(self.run_dir)
        return self._history

    @property
    def spent_seconds(self) -> float:
        """What monitoring has taken, on whichever thread."""
        return self._budget.spent

    def step(self, **scalars: float) -> None:
        """Count one optimizer step; capture if it is time. Called by the hook where there is an optimizer.

        Args:
            **scalars: Numbers to keep beside it, as with ``record``.
        """
        self.step_count += 1
        self._take_back()
        planned, self._planned = self._planned, None
        if planned == self.step_count or (not self._hooks and self._is_due(self.step_count)):
            if planned is None:
                self._budget.begin()
            with self.surviving("capture"):
                self._capture()
        if scalars:
            self.record(**scalars)

    def record(self, **scalars: float) -> None:
        """Keep numbers of this step beside the spectra, for instance ``record(loss=loss.item())``.

        Args:
            **scalars: Name and value; the name ``step`` is taken. They are in ``History.scalars``.

        Raises:
            ValueError: If a scalar is called ``step``, or a value is not a number.
        """
        if "step" in scalars:
            raise ValueError("a scalar cannot be called 'step': it is kept under the monitor's own step")
        values = {name: float(value) for name, value in scalars.items()}
        if self._writer is not None:
            with self.surviving("record"):
                self._writer.record(self.step_count, values)

    def on(self, condition: str | Condition, action: str | Action, *, every_time: bool = False) -> None:
        """Do something when a condition comes true.

        Args:
            condition: What ``htsr audit --fail-on`` takes: ``"median(alpha) < 2"``, ``"phase == 'rank-collapse'"``; on the
                rows of the weights at a capture. ``previous_phase`` is the phase at the capture before, so that
                ``"phase != previous_phase"`` holds where a phase changed (nowhere at the first capture).
            action: ``"stop"`` sets ``should_stop``, for the loop to look at (the callbacks for Trainer and Lightning do);
                ``"warn"`` logs a warning; or a function, called as ``action(monitor, verdict)`` on the training's thread,
                for instance one that writes a checkpoint.
            every_time: Act at every capture at which the condition holds. By default only when it comes true, or comes true
                of a layer for which it did not hold at the capture before; but a condition on ``previous_phase`` is of
                one capture and always acted on.

        Raises:
            InputError: If the condition cannot be read, names no column, or the action is unknown.
            TypeError: If the condition is none.
        """
        if not isinstance(condition, str | Condition):
            raise TypeError(f"expected a condition such as 'median(alpha) < 2', got {type(condition).__name__}")
        condition = Condition(condition) if isinstance(condition, str) else condition
        condition.check_columns(details_frame([], (*HISTORY_COLUMNS, PREVIOUS_PHASE)))
        every_time = every_time or "previous_phase" in condition.text
        self._watched.append(Watched(condition, named_action(action), every_time))

    def close(self) -> None:
        """Capture the last step, unless it was, wait for the background thread, and let go of the optimizer.

        Raises:
            RuntimeError: If something failed and ``raise_at_close`` was set.
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._closed:
            return
        self._closed = True
        self._camera.forget()
        if self._worker is not None:
            self._worker.finish()
            self._worker = None
            self._take_back()
        if self._last_capture != self.step_count and self._allowed(self.step_count):
            with self.surviving("capture"):
                self._capture(between_steps=True)
        self._event("closed", f"{self.spent_seconds:.3f} s spent on monitoring")
        if self._raise_at_close and self.failed:
            raise RuntimeError(
                f"{len(self.failed)} failures while monitoring, the first: {self.failed[0][1]}"
            ) from self._errors[0]

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _before_step(self, closure: bool) -> None:
        """Before the optimizer's step: decide whether it will be captured, and keep what it is about to change."""
        step = self.step_count + 1
        if not _is_left_out(self._optimizer) and self._is_due(step):
            self._budget.begin()
            with self.surviving("capture", step), self._budget.spending():
                self._camera.before_step(self._mine(), gradients=not closure)  # a closure computes them in the step
                self._planned = step

    def _after_step(self) -> None:
        if not _is_left_out(self._optimizer):
            self.step()

    def _is_due(self, step: int) -> bool:
        if self._ranks is not None and self._ranks.lost:
            return False
        due = False
        with self.surviving("schedule", step):
            due = bool(self._schedule(step))
        if due and not self._allowed(step):
            if self._promised:
                self._event("skipped", f"the budget, {self._budget.share:.2%} of wall time, is spent", step)
            return False
        if due and self._worker is not None and self._worker.is_full:
            self._event("skipped", f"{WAITING} captures wait for the background thread", step)
            return False
        return due

    def _allowed(self, step: int) -> bool:
        """Whether the budget has room for another capture, one that costs as much as the last."""
        if self._budget.share is None:
            return True
        missing = self._budget.missing()
        if self._ranks is None:
            return missing <= 0 and self._pending == 0
        if step < self._next_decision:
            return False
        allowed = False
        with self.surviving("agreement"):  # clocks differ, so rank 0 decides, and when the ranks ask again
            pace = self._budget.elapsed / max(1, step - self._first_step)
            allowed, self._next_decision = self._ranks.share((missing <= 0, step + max(1, math.ceil(missing / pace))))[
                0
            ]
        return allowed

    def _capture(self, between_steps: bool = False) -> None:
        """Look at this step; analyse it here, on all ranks, or hand it to the background thread."""
        step = self.step_count
        with self._budget.spending():
            snapshot = self._camera.shoot(self._mine(), between_steps)
            if step > self._first_step:
                for quantity, reason in snapshot.missing.items():
                    if (quantity, reason) not in self._reported:
                        self._reported.add((quantity, reason))
                        self._event("missing", f"{quantity} of no layer: {reason}")
            if self._worker is not None:
                self._worker.submit(partial(self._analyse_behind, snapshot, step))
                self._pending += 1
                return
            capture = self._analyse(snapshot, step)
            self._save(capture)
        self._last_capture = step
        self._hand_on(capture)

    def _mine(self) -> set[str] | None:
        """The layers that this rank keeps, once all ranks are there; None where there is one process."""
        if self._ranks is None:
            return None
        self._ranks.call_roll()
        return self._ranks.deal(self._camera.inventory().layers)

    def _analyse_behind(self, snapshot: Snapshot, step: int) -> None:
        """The background thread's job. What comes of it is taken back on the training's thread."""
        start, capture = time.perf_counter(), None
        with self.surviving("capture", step):
            found = self._analyse(snapshot, step)
            self._save(found)
            capture = found
        self._done.append((capture, time.perf_counter() - start))

    def _take_back(self) -> None:
        while self._done:
            capture, seconds = self._done.popleft()
            self._pending -= 1
            self._budget.spent += seconds
            if capture is not None:
                self._last_capture = capture.step
                self._hand_on(capture)

    def _analyse(self, snapshot: Snapshot, step: int) -> Capture:
        start = time.perf_counter()
        rows: list[Row] = []
        spectra: dict[tuple[str, str], Spectrum] = {}
        problem = None
        try:
            with one_thread():
                for quantity, inventory in snapshot.quantities.items():
                    analysis = analyze(inventory, progress=False, n_jobs=1, **self._options)
                    rows += [captured_row(layer.row, quantity) for layer in analysis]
                    spectra |= {(quantity, name): spectrum for name, spectrum in analysis.spectra.items()}
        except Exception as err:
            if self._ranks is None:
                raise
            problem = f"{type(err).__name__}: {err}"  # the others wait for this rank
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

    def _save(self, capture: Capture) -> None:
        if self._writer is not None:
            self._writer.save(capture)

    def _hand_on(self, capture: Capture) -> None:
        """Tell the tracker, and whoever waits for a condition."""
        with self._budget.spending():
            table = rows_frame([capture])
            if self._log is not None and (self._ranks is None or self._ranks.rank == 0):
                with self.surviving("log", capture.step):
                    self._log(tags(table, capture.groups), capture.step)
                    if hasattr(self._log, "histograms"):
                        self._log.histograms(capture.spectra, capture.step)
            weights = table[table["quantity"] == WEIGHTS]
            before = [
                self._phases.get(row.name, row.phase) for row in weights[["name", "phase"]].itertuples(index=False)
            ]
            self._phases = dict(zip(weights["name"], weights["phase"], strict=True))
            for watched in self._watched:
                with self.surviving("action", capture.step):
                    verdict = watched.look(weights.assign(previous_phase=pd.Series(before, weights.index, dtype="str")))
                    if verdict is not None:
                        self._event("condition", str(verdict), capture.step)
                        watched.action(self, verdict)

    @contextmanager
    def surviving(self, what: str, step: int | None = None) -> Iterator[None]:
        """A context in which an exception ends nothing: it is logged and kept in ``failed``.

        Args:
            what: What is done there, for the message.
            step: The step; that of now by default.
        """
        step = self.step_count if step is None else step
        try:
            yield
        except Exception as err:  # whatever it is, hours of training must not end for it
            self.failed.append((step, f"{what}: {type(err).__name__}: {err}"))
            self._errors.append(err)
            kind = (what, str(err.errno) if isinstance(err, OSError) and err.errno else str(err))
            if kind not in self._reported:  # a full disk fails at every capture; once is enough to say so
                self._reported.add(kind)
                logger.exception("%s at step %d failed; the training goes on", what, step)
            self._event("failed", self.failed[-1][1], step)

    def _event(self, kind: str, message: str, step: int | None = None) -> None:
        if self._writer is not None:
            self._writer.event(self.step_count if step is None else step, kind, message)

    def _open_directory(
        self, run_dir: str | Path | None, about: Mapping[str, object]
    ) -> tuple[RunWriter | None, Path, bool]:
        """Prepare the run directory, on rank 0: writer, path, whether it holds the first step. Errors are on all ranks."""
        writer, path, held, problem = None, None, False, None
        if self._ranks is None or self._ranks.rank == 0:
            try:
                path = Path(tempfile.mkdtemp(prefix="htsr-run-") if run_dir is None else run_dir)
                writer = RunWriter(path, about, self.step_count)
                held = writer.holds(self.step_count)
            except (InputError, OSError) as err:
                if self._ranks is None:
                    raise
                problem = err
        if self._ranks is not None:
            path, held, problem = self._ranks.share((path, held, problem))[0]
            if problem is not None:
                raise problem
        assert path is not None
        return writer, path, held


def _has_closure(args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether ``step`` was called with a closure; the first argument is the optimizer."""
    return kwargs.get("closure") is not None or (len(args) > 1 and args[1] is not None)


def _is_left_out(optimizer: Any) -> bool:
    """Whether a loss scaler found infinities and lets a fused optimizer leave this step out, which it does by itself."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.any())
