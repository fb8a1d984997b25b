"""A background thread that does jobs in order and never makes its caller wait."""

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

# A SimpleQueue, unlike a Queue, may be put to from a finalizer, which can run at any moment.
_JOBS_OF: "weakref.WeakKeyDictionary[threading.Thread, queue.SimpleQueue[Any]]" = weakref.WeakKeyDictionary()


class Worker(Generic[Result]):
    """Does jobs one after the other on a thread of its own, and keeps their results until they are collected.

    At most ``max_waiting`` jobs wait while another one runs. ``pending`` counts the jobs that were submitted and whose results
    were not collected. Only one thread may submit and collect. The thread ends with ``finish``, or does the jobs that wait and
    ends by itself once nobody refers to the worker.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.pending = 0
        self._jobs: queue.SimpleQueue[Callable[[], Result] | None] = queue.SimpleQueue()
        self._results: deque[Result] = deque()
        self._thread = threading.Thread(
            target=_work, args=(self._jobs, self._results), name="htsr-monitor", daemon=True
        )
        _JOBS_OF[self._thread] = self._jobs
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        # Functions at exit run in reverse order, and this one must run before temporary run directories are removed.
        atexit.unregister(_finish_all)
        atexit.register(_finish_all)

    @property
    def is_full(self) -> bool:
        """Return whether no further job can wait."""
        return self._jobs.qsize() >= self.max_waiting

    def submit(self, job: Callable[[], Result]) -> None:
        """Queue a job, which must not raise; raise ``queue.Full`` if as many jobs wait as may wait."""
        if self.is_full:
            raise queue.Full
        self._jobs.put(job)
        self.pending += 1

    def collect(self) -> Iterator[Result]:
        """Yield the results of the jobs that were done since the last call, in order."""
        while self._results:
            self.pending -= 1
            yield self._results.popleft()

    def finish(self) -> None:
        """Do the jobs that wait, and end the thread."""
        _finish(self._thread, self._jobs)


def _work(jobs: "queue.SimpleQueue[Callable[[], Any] | None]", results: deque[Any]) -> None:
    """Do jobs until None comes; refer to no worker, so that a forgotten one can be collected."""
    while (job := jobs.get()) is not None:
        results.append(job())
        del job  # it may hold a copy of the model


def _finish(thread: threading.Thread, jobs: "queue.SimpleQueue[Any]") -> None:
    if thread.is_alive():
        jobs.put(None)
        thread.join()


def _finish_all() -> None:
    """Do the jobs that wait before the process ends: a script that never closes its monitor still gets all its captures."""
    for thread, jobs in list(_JOBS_OF.items()):
        _finish(thread, jobs)
