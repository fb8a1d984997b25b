"""The one process that writes a run directory."""

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from htsr.errors import InputError
from htsr.files import FileLock, written_aside
from htsr.training.store.capture import Capture
from htsr.training.store.files import (
    ABOUT,
    CAPTURES,
    DAMAGE,
    EVENTS,
    LOCK,
    SCALARS,
    SCHEMA,
    append_line,
    capture_name,
    capture_step,
    with_checksum,
)
from htsr.training.store.reader import read_about
from htsr.training.store.tables import (
    CAPTURES_PER_TABLE,
    consolidate,
    drop_damaged_tables,
    forget_tables,
    untabled,
)

logger = logging.getLogger(__name__)


class RunWriter:
    """Writes a new run, or one that is resumed at ``first_step``; refuses a new run where a directory holds captures.

    It locks the directory until ``close``, and refuses one that another writer has locked. The system takes the lock back from a
    process that ends, however it ends.

    A resumed run sets aside what the abandoned run did after that step: it renames the captures, and readers ignore the
    scalars and events. It keeps the description in the directory instead of ``about``, if that is intact.
    """

    def __init__(self, run_dir: Path, about: Mapping[str, object], first_step: int) -> None:
        self._run_dir = run_dir
        self._waiting_events: deque[dict[str, object]] = deque()
        self._event_lock = Lock()
        captures = run_dir / CAPTURES
        captures.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(run_dir / LOCK, f"{run_dir}: another Monitor writes this run; close it first")
        earlier = sorted(captures.glob("step-*.npz"))
        if earlier and first_step == 0:
            self.close()
            raise InputError(
                f"{run_dir} holds {len(earlier)} captures of an earlier run, the last of step "
                f"{capture_step(earlier[-1].name)}: continue it with first_step=, or give this run a directory of its own "
                "with run_dir="
            )
        problems = drop_damaged_tables(run_dir)
        if earlier:
            forget_tables(run_dir, first_step)
        for part in earlier:
            if capture_step(part.name) > first_step:
                part.rename(part.with_name(f"abandoned-{part.name}"))
        if (run_dir / ABOUT).exists() and first_step:
            try:
                kept, damaged = read_about(run_dir)
            except InputError as err:
                kept, damaged = dict(about), {ABOUT: str(err)}
            about = (dict(about) if damaged else kept) | {"schema": SCHEMA, "resumed_at": first_step}
            problems += [f"{name}: {why}" for name, why in damaged.items()]
            for name in (SCALARS, EVENTS):
                append_line(run_dir / name, {"resumed": first_step})
        with written_aside(run_dir / ABOUT) as file:
            file.write(with_checksum(about, indent=2))
        self._untabled = untabled(run_dir)
        for problem in problems:
            self.event(first_step, "damaged", f"{problem}; it was made anew")
        if earlier:
            self.event(first_step, "resumed", "the run goes on in this directory")

    def close(self) -> None:
        """Let others write the run."""
        self._lock.release()

    def holds(self, step: int) -> bool:
        """Return whether the directory holds an intact capture of a step."""
        try:
            Capture.load(self._run_dir / CAPTURES / capture_name(step))
        except DAMAGE:
            return False
        return True

    def save(self, capture: Capture) -> None:
        """Write a capture, and after every hundred a table of them."""
        name = capture_name(capture.step)
        capture.save(self._run_dir / CAPTURES / name)
        if name not in self._untabled:
            self._untabled.append(name)
        if len(self._untabled) % CAPTURES_PER_TABLE == 0:
            try:
                self._untabled = consolidate(self._run_dir, self._untabled)
            except OSError as err:  # no capture is lost; the run only opens more slowly
                logger.warning("%s: could not write the table of the last captures (%s)", self._run_dir, err)

    def record(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step."""
        append_line(self._run_dir / SCALARS, {"step": step, **scalars})

    def event(self, step: int, kind: str, message: str) -> None:
        """Write what happened at a step, from any thread; on a full disk, write it with the next event that finds room."""
        with self._event_lock:
            self._waiting_events.append({"step": step, "kind": kind, "message": message})
            with suppress(OSError):
                while self._waiting_events:
                    append_line(self._run_dir / EVENTS, self._waiting_events[0])
                    self._waiting_events.popleft()


class NoWriter:
    """Stands in for a ``RunWriter`` on ranks that write nothing."""

    def close(self) -> None:
        """Do nothing."""

    def save(self, capture: Capture) -> None:
        """Do nothing."""

    def record(self, step: int, scalars: Mapping[str, float]) -> None:
        """Do nothing."""

    def event(self, step: int, kind: str, message: str) -> None:
        """Do nothing."""
