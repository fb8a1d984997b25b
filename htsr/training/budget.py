"""How much time monitoring takes, and how much it may take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """A share of wall time. The clock starts when it is made.

    Args:
        share: The share that monitoring may take; None for no limit.

    Attributes:
        share: The same.
        spent: Seconds that monitoring took, on whichever thread.
    """

    def __init__(self, share: float | None) -> None:
        self.share = share
        self.spent = 0.0
        self._spent_before = 0.0  # what had been spent when the last capture began
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def begin(self) -> None:
        """A capture begins; what is spent from now on is its cost."""
        self._spent_before = self.spent

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time this takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - start

    def missing(self) -> float:
        """Seconds until there is room for another capture that costs as much as the last; none if 0 or less."""
        if self.share is None:
            return 0.0
        expected = self.spent - self._spent_before
        return (self.spent + expected) / self.share - self.elapsed
