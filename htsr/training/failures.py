"""Failures that the training survives."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from htsr.training.store.writer import NoWriter, RunWriter

logger = logging.getLogger(__name__)

# Failures of one kind that are listed and written. A bad scalar fails at every step, and a training may have millions.
MAX_LISTED = 1000


class Failures:
    """Survives exceptions: each is listed and written as an event, and the first of its kind is logged.

    With ``keep_first`` the very first is kept for ``raise_any``, although its traceback may hold a copy of the model.
    """

    def __init__(self, writer: RunWriter | NoWriter, *, keep_first: bool = False) -> None:
        self.listed: list[tuple[int, str]] = []
        self._writer = writer
        self._keep_first = keep_first
        self._first: Exception | None = None
        self._counts: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def surviving(self, what: str, step: int) -> Iterator[None]:
        """Return a context, for any thread, in which an exception is recorded under ``what`` instead of raised."""
        try:
            yield
        except Exception as err:  # whatever it is, hours of training must not end because of it
            kind = (what, type(err).__name__, str(getattr(err, "errno", "")))
            self._counts[kind] += 1
            if self._counts[kind] > MAX_LISTED:
                return
            message = f"{what}: {type(err).__name__}: {err}"
            self.listed.append((step, message))
            if self._keep_first:
                self._first = self._first or err
            if self._counts[kind] == 1:  # a full disk fails at every capture, and one report of it is enough
                logger.exception("%s at step %d failed; the training goes on", what, step)
            self._writer.event(step, "failed", message)

    def raise_any(self) -> None:
        """Raise a ``RuntimeError`` from the first failure, if there was one."""
        if self.listed:
            raise RuntimeError(
                f"{len(self.listed)} failures while monitoring, the first: {self.listed[0][1]}"
            ) from self._first
