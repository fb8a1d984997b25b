"""A thread that does jobs in order, with a short queue that never makes the caller wait."""

import atexit
import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Worker:
    """Does jobs one after the other in the background.

    Args:
        waiting: How many jobs may wait.
    """

    def __init__(self, waiting: int) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=waiting)
        self._thread = threading.Thread(target=self._work, name="htsr-monitor", daemon=True)
        self._thread.start()
        atexit.register(self.finish)  # what was seen is analysed, even if nobody closes the monitor

    @property
    def is_full(self) -> bool:
        """Whether no further job can wait."""
        return self._jobs.full()

    def submit(self, job: Job, wait: bool = False) -> None:
        """Queue a job, which must not raise.

        Args:
            job: The job.
            wait: Wait for a place in the queue.

        Raises:
            queue.Full: If there is none and the caller does not wait.
        """
        self._jobs.put(job, block=wait)

    def finish(self) -> None:
        """Do the jobs that wait, and end."""
        atexit.unregister(self.finish)
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it may hold a copy of the model
