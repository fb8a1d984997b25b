"""Watch a model's spectra while it trains."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from torch import nn
from torch.optim import Optimizer

from htsr.audit.conditions import Condition
from htsr.training.arguments import check_arguments, logged_layers, quantities_of, schedule_of
from htsr.training.budget import Budget
from htsr.training.capturing import Capturer, CaptureWorker
from htsr.training.failures import Failures
from htsr.training.hooks import StepHooks
from htsr.training.optimizers import Turns, has_closure, optimizers_of, refuse_strangers, skips_step
from htsr.training.permission import Permission
from htsr.training.ranks import Ranks, is_distributed
from htsr.training.reporting import Log, Reporter
from htsr.training.run_directory import describe_run, open_run_directory
from htsr.training.schedules import CaptureSchedule
from htsr.training.snapshot import Camera
from htsr.training.store.capture import WEIGHTS, Capture
from htsr.training.store.history import History
from htsr.training.watching import Action
from htsr.weights.select import Patterns

# Captures that may wait for the background thread; each holds a copy of the watched layers.
MAX_WAITING = 2


class Monitor:
    """Captures the spectra of a model's weight matrices every few optimizer steps.

    The Monitor counts steps with the optimizer's own step hook, so it counts correctly under gradient accumulation and when a
    loss scaler skips a step. Several optimizers, such as Muon and AdamW or the two of a GAN, take turns in the order of their
    first steps, and a training step begins with one that does not come later in that order than the one before it. A GAN whose
    discriminator steps five times for each step of the generator therefore makes five. The Monitor captures the weights before
    the first step, every ``every`` steps, and once more at ``close()``; that last capture has neither gradients nor updates,
    since it does not belong to a step.
    Once the constructor has returned, no failure of the Monitor stops the training: it is logged and listed in ``failed``.
    The Monitor does not touch the training itself: weights are bit for bit what they are without it.
    Keep the Monitor in a variable: it watches until ``close()``, or until nothing refers to it any more.

    Args:
        model: The model. It is not changed.
        optimizer: Its optimizer, or all of its optimizers as a sequence, possibly wrapped by accelerate or Lightning. Without
            one, call ``step()`` after each training step.
        every: Optimizer steps between captures, or a schedule, which is a function ``step -> bool`` such as
            ``htsr.training.log_spaced()``. By default 100; with a budget, whenever the budget allows.
        run_dir: The directory that keeps the captures, one file each, which survive ``kill -9``. If it holds another run, this
            one goes on in a directory beside it, ``<run_dir>-2``, ``<run_dir>-3`` and so on, and a warning says so. With None, a
            temporary directory keeps them as long as the monitor or its history lives.
        log: The Monitor calls ``log(metrics, step)`` at each capture, on the training's thread, with tags such as
            ``htsr/alpha/median`` and ``htsr/update_rms/group0``. ``wandb.log`` and most trackers' methods fit as they are;
            ``htsr.training.trackers`` has some that also draw histograms.
        log_layers: Layers whose own metrics ``log`` gets, too, with tags such as ``htsr/alpha/<layer>``: True for all, or
            patterns as in ``analyze``.
        layers: Layers to watch, as in ``analyze``.
        skip: Layers to leave out, as in ``analyze``.
        capture: What to capture: ``weights``, ``gradients``, ``momentum``, ``updates`` (the change that the last step made,
            with ``step_per_lr``, ``step_vs_promise`` and ``verdict``, as in ``audit_steps``).
        budget: The share of wall time that monitoring may take, for instance 0.02. The Monitor then makes a capture only once
            all the time it has spent, the next capture included, lies within the budget. Time on the background thread counts
            in full. The first capture is always made.
        background: Copy the watched layers to main memory at a capture and analyse the copies on another thread, which uses
            one core; in a single process only. At most two captures wait for the thread; the Monitor skips further ones, and
            ``History.events`` says so.
        bootstrap: Resamples for the interval of alpha, as in ``analyze``; 0 leaves it out. 50 take about 0.01 s a layer.
        bulk: Compare with noise, as in ``analyze``.
        first_step: The number of steps done before, for a run that is resumed in the same directory, or in the last of those
            beside it that came as far. The run keeps an intact capture of that very step and sets later captures of the
            abandoned run aside.
        raise_at_close: Let ``close()`` raise if something failed.
        timeout: Seconds that the ranks of a distributed training wait for each other at a capture. If one does not come, the
            others stop capturing and go on training.
        about: Settings of the run to keep in ``run.json``, by name: numbers, texts, truth values or None. ``History.settings``
            has them beside ``lr``, ``power`` and ``weight_decay`` of the optimizer and torch's ``seed``, if the training has set
            one; a setting that is given here replaces one that the Monitor found. Tables and labels of runs show all of them.
        per_head: Cut attention weights into their heads, as in ``analyze``; ``htsr.attention_logits`` needs it.

    Attributes:
        step_count: Training steps done, or begun if there are several optimizers.
        run_dir: The run directory.
        model: The model.
        last_capture: What the Monitor captured last; None if it has captured nothing yet in this process.
        should_stop: Whether a condition asked the training to stop; see ``on``.

    Raises:
        InputError: If an optimizer holds none of the model's parameters, or ``layers`` match nothing.
        TypeError: If the model is not a module, the optimizer has no step hooks, or an argument has the wrong type.
        ValueError: If a number is out of range, ``capture`` names an unknown quantity or one that needs the optimizer, or
            ``background`` is asked for in a distributed training.

    Notes:
        Distances, ``update_rms`` and updates need the parameters before and after a step: the Monitor copies them before each
        step that it captures. An event names the trainable parameters that no optimizer holds, whenever they change.

        Under DDP and FSDP2 every rank makes a Monitor. The ranks share the layers out for analysis, rank 0 writes and logs, and
        every rank judges the conditions alike.

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
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        *,
        every: int | CaptureSchedule | None = None,
        run_dir: str | Path | None = None,
        log: Log | None = None,
        log_layers: bool | Patterns = False,
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
        about: Mapping[str, object] | None = None,
        per_head: bool = False,
    ) -> None:
        check_arguments(model, every, run_dir, log, budget, background, bootstrap, first_step, timeout, about)
        optimizers = optimizers_of(optimizer)
        refuse_strangers(model, optimizers)
        self._quantities = quantities = quantities_of(capture, bool(optimizers))
        first_step = int(first_step)  # NumPy's whole numbers cannot be written as JSON
        self.model = model
        self.last_capture: Capture | None = None
        self._raise_at_close = raise_at_close
        self.step_count = first_step
        self.should_stop = False
        self._closed = False
        self._planned: int | None = None  # the step that is being made or comes next, if it is to be captured
        self._turns = Turns(len(optimizers))
        self._budget = Budget(budget)
        camera = Camera(model, optimizers, layers, skip, quantities, copy=background, per_head=per_head)
        logged = logged_layers(
            log_layers, camera.inventory()
        )  # refuse patterns without a match before anything is written
        ranks = Ranks(timeout) if is_distributed() else None
        opened = open_run_directory(
            run_dir, describe_run(model, optimizers, every, budget, quantities, about), first_step, ranks
        )
        self.run_dir, self._history, self._writer = opened.path, opened.history, opened.writer
        self._failures = Failures(self._writer, keep_first=raise_at_close)
        log = log if ranks is None or ranks.rank == 0 else None
        self._reporter = Reporter(log, logged, self._writer, self._failures)
        self._worker = CaptureWorker(MAX_WAITING) if background else None
        self._permission = Permission(
            schedule_of(every, budget), self._budget, ranks, self._worker, self._writer, self._failures,
            announced=every is not None or budget is None, first_step=first_step,
        )  # fmt: skip
        self._capturer = Capturer(
            camera, self._budget, ranks, self._worker, self._writer, self._failures,
            first_step=first_step, options={"bootstrap": bootstrap, "bulk": bulk},
        )  # fmt: skip
        self._capturer.report_unstepped(first_step)
        if opened.holds_first_step:
            self._capturer.last_step = first_step
        else:
            self._capture()
        self._hooks = StepHooks(optimizers, self._before_step, self._after_step, self.run_dir)

    @property
    def history(self) -> History:
        """The run, as a ``History``; on ranks other than 0 only where they can read the directory."""
        if self._history is None:
            self._history = History(self.run_dir)
        return self._history

    @property
    def failed(self) -> list[tuple[int, str]]:
        """Step and message of each capture, record, schedule, action or call of ``log`` that failed."""
        return self._failures.listed

    @property
    def spent_seconds(self) -> float:
        """Seconds that monitoring took, on all threads of this process."""
        return self._budget.spent

    def step(self, /, **scalars: float) -> None:
        """Count one training step, and capture if it is time; with an optimizer, its hooks do this.

        Args:
            **scalars: Numbers to keep with the step, as with ``record``.
        """
        with self.surviving("step"):
            _refuse_closed(self._closed)
            self._count_step()
            if not self._hooks and self._permission.to_capture(self.step_count):
                self._capture()
        if scalars:
            self.record(**scalars)

    def record(self, /, **scalars: float) -> None:
        """Keep numbers with this step, for instance ``record(loss=loss.item())``.

        A value that is not a number, and the name ``step``, which is taken, are left out and listed in ``failed``.

        Args:
            **scalars: Name and value. ``History.scalars`` returns them.
        """
        numbers: dict[str, float] = {}
        for name, value in scalars.items():
            with self.surviving(f"record({name})"):
                numbers[name] = _scalar(name, value)
        if numbers:
            with self.surviving("record"):
                self._writer.record(self.step_count, numbers)
            with self.surviving("record"):
                self._reporter.recorded(self.step_count, numbers, self)

    def on(self, condition: str | Condition, action: str | Action, *, every_time: bool = False) -> None:
        """Do something when a condition comes true.

        Args:
            condition: A condition as for ``htsr audit --fail-on``, such as ``"median(alpha) < 2"`` or
                ``"phase == 'rank-collapse'"``. The Monitor judges it at each capture on the rows of the weights, or, if
                ``capture`` leaves them out, of the first other quantity. ``"step_vs_promise < 0.5"`` needs ``updates``.
                A name that is no column is a scalar that ``record`` gets: the Monitor judges ``"loss < 0.1"`` whenever a loss
                is recorded, and ``"loss < 0.1 and median(alpha) < 2"`` at each capture, with the last loss. In a distributed
                training, record the same value on every rank.
                ``previous_phase`` is the phase at the capture before, so that ``"phase != previous_phase"`` holds where a
                phase changed (for no layer at the first capture).
            action: ``"stop"`` sets ``should_stop``, which the training loop must read (the callbacks for Trainer and Lightning
                do); ``"warn"`` logs a warning; a function is called as ``action(monitor, verdict)`` on the training's thread
                and may, for instance, write a checkpoint.
            every_time: Act at every capture at which the condition holds. By default the Monitor acts only when it comes true,
                or comes true of a layer for which it did not hold at the capture before. It always acts on a condition
                that names ``previous_phase``.

        Raises:
            InputError: If the condition cannot be read, names what seems to be a misspelt column, or one that only ``updates``
                have, which are not captured.
            TypeError: If the condition is neither a text nor a ``Condition``, or the action neither a name nor a function.
            ValueError: If the action's name is unknown.
        """
        self._reporter.watch(condition, action, every_time, self._quantities)

    def close(self) -> None:
        """Capture the last step unless it was captured, wait for the background thread, and remove the optimizer's hooks.

        Raises:
            RuntimeError: If something failed and ``raise_at_close`` was set.
        """
        if self._closed:
            return
        self._hooks.remove()
        self._end_step()
        self._closed = True
        with self.surviving("close"):
            self._capturer.finish()
            self._hand_over()
            if self._capturer.last_step != self.step_count and self._permission.has_room(self.step_count):
                self._capture(between_steps=True)
        self._reporter.finish(self.step_count)
        self._writer.event(self.step_count, "closed", f"{self.spent_seconds:.3f} s spent on monitoring")
        self._writer.close()
        if self._raise_at_close:
            self._failures.raise_any()

    def surviving(self, what: str, step: int | None = None) -> AbstractContextManager[None]:
        """Return a context in which an exception is logged and listed in ``failed``, instead of raised.

        Args:
            what: What is done there, for the message.
            step: The step; by default the current one.

        Returns:
            The context.
        """
        return self._failures.surviving(what, self.step_count if step is None else step)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        from htsr.report.notebook import monitor_html

        return monitor_html(self)

    def __repr__(self) -> str:
        return (
            f"Monitor({type(self.model).__name__}, step={self.step_count}, captures={self._capturer.count}, "
            f"run_dir={str(self.run_dir)!r})"
        )

    def _before_step(self, optimizer: Optimizer, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Decide, before the first optimizer steps, whether to capture the step, and keep what each is about to change."""
        with self.surviving("step"):
            if skips_step(optimizer):
                return
            if self._turns.begins_step(optimizer):
                self._end_step()
                step = self.step_count + 1
                self._planned = step if self._permission.to_capture(step) else None
            planned, self._planned = self._planned, None
            if planned is not None:
                with self.surviving("capture", planned):
                    # A closure computes the gradients in the step.
                    self._capturer.before_step(optimizer, gradients=not has_closure(args, kwargs))
                    self._planned = planned

    def _after_step(self, optimizer: Optimizer, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Count a training step with its first optimizer, and capture it after its last one."""
        with self.surviving("step"):
            if skips_step(optimizer):
                return
            if self._turns.begins_step(optimizer):
                self._count_step()
            self._turns.take(optimizer)
            if self._planned is not None and has_closure(args, kwargs):
                self._capturer.after_step(optimizer)
            if self._turns.is_complete:
                self._end_step()

    def _count_step(self) -> None:
        self.step_count += 1
        self._hand_over()

    def _end_step(self) -> None:
        """Capture the step that was made, if that was planned, and forget what was kept of a step that never came about."""
        planned, self._planned = self._planned, None
        if planned == self.step_count:
            self._capture()
        self._capturer.forget()

    def _capture(self, *, between_steps: bool = False) -> None:
        with self.surviving("capture"):
            self._capturer.capture(self.step_count, between_steps=between_steps)
        self._hand_over()

    def _hand_over(self) -> None:
        """Report the captures that were written since the last call, on the training's thread."""
        for capture in self._capturer.finished():
            self.last_capture = capture
            with self._budget.spending():
                self._reporter.report(capture, self)


def _scalar(name: str, value: object) -> float:
    """Return a scalar as a number; refuse the name of the Monitor's own step."""
    if name == "step":
        raise ValueError("a scalar cannot be called 'step': that is the name of the Monitor's own step")
    return float(value)  # type: ignore[arg-type]


def _refuse_closed(closed: bool) -> None:
    if closed:
        raise RuntimeError("expected an open Monitor, got a step after close()")
