"""A background thread that does jobs in order and never makes its caller wait."""

import atexit
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Worker(Generic[Result]):
    """Does jobs one after the other on a thread of its own, and keeps their results until they are collected.

    At most ``max_waiting`` jobs wait while another one runs. ``pending`` counts the jobs that were submitted and whose results
    were not collected. Only one thread may submit and collect.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.pending = 0
        self._jobs: queue.Queue[Callable[[], Result] | None] = queue.Queue(maxsize=max_waiting)
        self._results: deque[Result] = deque()
        self._thread = threading.Thread(target=self._work, name="htsr-monitor", daemon=True)
        self._thread.start()
        atexit.register(self.finish)  # a script that never closes its monitor still gets all its captures

    @property
    def is_full(self) -> bool:
        """Return whether no further job can wait."""
        return self._jobs.full()

    def submit(self, job: Callable[[], Result]) -> None:
        """Queue a job, which must not raise; raise ``queue.Full`` if the queue is full."""
        self._jobs.put(job, block=False)
        self.pending += 1

    def collect(self) -> Iterator[Result]:
        """Yield the results of the jobs that were done since the last call, in order."""
        while self._results:
            self.pending -= 1
            yield self._results.popleft()

    def finish(self) -> None:
        """Do the jobs that wait, and end the thread."""
        atexit.unregister(self.finish)
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._results.append(job())
            del job  # it may hold a copy of the model
