"""Eigenvalues of symmetric matrices, several threads at a time."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack

# scipy's LAPACK counts in 32 bits; the places of a matrix with more rows may not fit.
MAX_ROWS = 2**15
# Arguments of dsyevd that are C ints: n, lda, lwork, liwork, info, and the workspace iwork.
SIZES = 6


def eigvalsh(stack: np.ndarray) -> np.ndarray:
    """Eigenvalues of symmetric matrices. The matrices are overwritten.

    Args:
        stack: Shape ``(R, M, M)``, float64, contiguous; M >= 1.

    Returns:
        Ascending, shape ``(R, M)``.

    Raises:
        numpy.linalg.LinAlgError: If the eigenvalues of a matrix do not converge.

    Notes:
        LAPACK's ``dsyevd``, as in ``numpy.linalg.eigvalsh``, from scipy's interface for compiled code. numpy (2.4) lets one
        thread at a time into LAPACK and scipy's own functions keep Python's lock, so that two threads with 30 matrices of
        384 x 384 each took twice as long as one; these take as long as one (two cores). Nor is the matrix copied.
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
    """``dsyevd`` as a function of addresses that does not hold Python's lock; None if scipy counts in other than C's int."""
    python: Any = ctypes.pythonapi
    python.PyCapsule_GetName.restype = ctypes.c_char_p
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    capsule = ctypes.py_object(cython_lapack.__pyx_capi__["dsyevd"])
    signature = python.PyCapsule_GetName(capsule)
    if signature.count(b", int *") != SIZES:
        return None
    address = python.PyCapsule_GetPointer(capsule, ctypes.c_char_p(signature))
    characters, rest = [ctypes.c_char_p] * 2, [ctypes.c_void_p] * 9
    return ctypes.CFUNCTYPE(None, *characters, *rest)(address)
