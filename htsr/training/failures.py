"""Failures that the training survives."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from htsr.training.store.writer import NoWriter, RunWriter

logger = logging.getLogger(__name__)


class Failures:
    """Survives exceptions: each is listed and written as an event, and the first of its kind is logged."""

    def __init__(self, writer: RunWriter | NoWriter) -> None:
        self.listed: list[tuple[int, str]] = []
        self._writer = writer
        self._first: Exception | None = None  # only the first is kept: a traceback may hold a copy of the model
        self._logged: set[tuple[str, str]] = set()

    @contextmanager
    def surviving(self, what: str, step: int) -> Iterator[None]:
        """Return a context, for any thread, in which an exception is recorded under ``what`` instead of raised."""
        try:
            yield
        except Exception as err:  # whatever it is, hours of training must not end because of it
            message = f"{what}: {type(err).__name__}: {err}"
            self.listed.append((step, message))
            self._first = self._first or err
            kind = (what, str(err.errno) if isinstance(err, OSError) and err.errno else str(err))
            if kind not in self._logged:  # a full disk fails at every capture, and one report of it is enough
                self._logged.add(kind)
                logger.exception("%s at step %d failed; the training goes on", what, step)
            self._writer.event(step, "failed", message)

    def raise_any(self) -> None:
        """Raise a ``RuntimeError`` from the first failure, if there was one."""
        if self._first is not None:
            raise RuntimeError(
                f"{len(self.listed)} failures while monitoring, the first: {self.listed[0][1]}"
            ) from self._first
