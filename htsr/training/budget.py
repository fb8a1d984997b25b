"""How much time monitoring takes, and how much it may take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """A share of the wall time since the budget was made, or no limit if ``share`` is None.

    ``spent`` counts the seconds that monitoring took, on all threads.
    """

    def __init__(self, share: float | None) -> None:
        self.share = share
        self.spent = 0.0
        self._spent_before = 0.0  # what had been spent when the last capture began
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the budget was made."""
        return time.perf_counter() - self._started

    def begin(self) -> None:
        """Note that a capture begins: what is spent from now on is its cost."""
        self._spent_before = self.spent

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that the context takes as spent."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - start

    def missing(self) -> float:
        """Return the seconds until another capture as costly as the last one fits in; 0 or less if it does now."""
        if self.share is None:
            return 0.0
        expected = self.spent - self._spent_before
        return (self.spent + expected) / self.share - self.elapsed
