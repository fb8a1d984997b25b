"""How many threads linear algebra uses."""

import ctypes
from contextlib import AbstractContextManager
from functools import lru_cache

import torch  # noqa: F401  # threadpoolctl limits only libraries that are loaded
from threadpoolctl import ThreadpoolController, threadpool_limits


def one_thread() -> AbstractContextManager[object]:
    """Return a context within which the calling thread's linear algebra uses one core.

    Two threads that each use every core slow each other down: on two busy cores the eigenvalues of a 900 x 900 matrix took
    0.23 s with one thread and 3 s with two. torch's OpenMP keeps its limit per thread, so other threads keep theirs; numpy's
    limit holds for the whole process and is restored when the context ends.
    """
    return threadpool_limits(1)


def blas_threads(limit: int | None) -> AbstractContextManager[object]:
    """Return a context within which numpy's BLAS uses ``limit`` threads, or as many as before for None.

    Entering the context takes a tenth of a millisecond.
    """
    return _libraries().limit(limits=limit, user_api="blas")


def one_core() -> None:
    """Limit torch to one core in the calling thread from now on; each thread of a pool calls this as it starts."""
    _libraries().limit(limits=1, user_api="openmp")


def blas_libraries() -> list[ctypes.CDLL]:
    """Return the libraries of linear algebra that this process has loaded and that threadpoolctl knows."""
    return [library.dynlib for library in _libraries().lib_controllers if library.user_api == "blas"]


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """Return the loaded thread pools; one look-up is enough, since numpy's and torch's are loaded from the start."""
    return ThreadpoolController()
