"""Eigenvalues of symmetric matrices, without a lock that keeps other threads waiting."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack

# scipy's LAPACK indexes with 32-bit integers, which can overflow in a matrix with more rows than this.
MAX_ROWS = 2**15
# dsyevd takes six pointers to C ints: n, lda, lwork, iwork (the workspace), liwork and info.
NUM_INT_POINTERS = 6


def eigvalsh(stack: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of contiguous float64 matrices of shape ``(R, M, M)``, ascending in each row, ``(R, M)``.

    LAPACK overwrites the matrices.

    Raises:
        LinAlgError: If the eigenvalues of a matrix do not converge.

    Notes:
        This calls LAPACK's ``dsyevd``, as ``numpy.linalg.eigvalsh`` does, but through scipy's interface for compiled code.
        numpy (2.4) lets only one thread at a time into LAPACK, and scipy's own functions hold Python's lock: with either, two
        threads that each decompose 30 matrices of 384 x 384 take twice as long as one thread. Through this interface they
        take as long as one (measured on two cores), and no matrix is copied.
    """
    R, M = stack.shape[:2]
    dsyevd = _dsyevd()
    if dsyevd is None or M > MAX_ROWS:
        return np.linalg.eigvalsh(stack)
    evals = np.empty((R, M))
    work, iwork = np.empty(max(2 * M + 1, 64 * M)), np.empty(1, dtype=np.intc)
    n, lwork, liwork, info = (ctypes.c_int(value) for value in (M, len(work), len(iwork), 0))
    for matrix, row in zip(stack, evals, strict=True):
        dsyevd(
            b"N", b"L", ctypes.byref(n), matrix.ctypes.data, ctypes.byref(n), row.ctypes.data,
            work.ctypes.data, ctypes.byref(lwork), iwork.ctypes.data, ctypes.byref(liwork), ctypes.byref(info),
        )  # fmt: skip
        if info.value:
            raise np.linalg.LinAlgError(f"eigenvalues did not converge (LAPACK's dsyevd: info {info.value})")
    return evals


@lru_cache(maxsize=1)
def _dsyevd() -> Callable[..., None] | None:
    """Return ``dsyevd`` as a function of addresses that releases Python's lock, or None if its integers are not C ints."""
    python: Any = ctypes.pythonapi
    python.PyCapsule_GetName.restype = ctypes.c_char_p
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    capsule = ctypes.py_object(cython_lapack.__pyx_capi__["dsyevd"])
    signature = python.PyCapsule_GetName(capsule)
    if signature.count(b", int *") != NUM_INT_POINTERS:
        return None
    address = python.PyCapsule_GetPointer(capsule, ctypes.c_char_p(signature))
    characters, rest = [ctypes.c_char_p] * 2, [ctypes.c_void_p] * 9
    return ctypes.CFUNCTYPE(None, *characters, *rest)(address)
