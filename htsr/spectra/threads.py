"""How many threads linear algebra uses."""

from contextlib import AbstractContextManager
from functools import lru_cache

import torch  # noqa: F401  # loads what is limited here
from threadpoolctl import ThreadpoolController, threadpool_limits


def one_thread() -> AbstractContextManager[object]:
    """A context within which linear algebra that this thread calls uses one core.

    Two threads that each use all cores hinder each other more than they help: on two busy cores eigenvalues of a 900 x 900
    matrix took 0.23 s with one thread and 3 s with two. OpenMP, torch's, keeps the number for each thread, so no other
    thread is touched; numpy's is that of the process, and restored at the end.

    Returns:
        The context.
    """
    return threadpool_limits(1)


def blas_threads(limit: int | None) -> AbstractContextManager[object]:
    """A context within which numpy's linear algebra uses so many threads.

    Args:
        limit: The number; None leaves it as it is.

    Returns:
        The context; entering it takes a tenth of a millisecond.
    """
    return _libraries().limit(limits=limit, user_api="blas")


def one_core() -> None:
    """Let torch use one core in this thread from now on; a thread of a pool calls it as it starts."""
    _libraries().limit(limits=1, user_api="openmp")


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """What is loaded, looked up once: numpy's and torch's are there from the start."""
    return ThreadpoolController()
