"""Eigenvalues of symmetric matrices: the fastest LAPACK at hand, without a lock that keeps other threads waiting."""

import ctypes
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import cython_lapack

from htsr.spectra.threads import blas_libraries

# scipy's LAPACK indexes with 32-bit integers, which can overflow in a matrix with more rows than this.
MAX_ROWS = 2**15
# dsyevd takes six pointers to C ints: n, lda, lwork, iwork (the workspace), liwork and info.
NUM_INT_POINTERS = 6
# From so many rows on, MKL takes the matrix on an Intel processor, and the two-stage reduction elsewhere. With one thread, MKL
# takes 0.56, 0.53 and 0.38 times as long as dsyevd at 1536, 2048 and 4096 rows, and the two-stage reduction 0.80, 0.68 and 0.51
# times (Intel Xeon with AVX-512). On an AMD EPYC the two-stage reduction took 0.74 times as long as dsyevd at 3072 rows, and
# longer than dsyevd below 2048.
MKL_FROM, TWO_STAGE_FROM = 1536, 2048

# dsyevd or dsyevd_2stage, which take the same arguments, as a function of addresses.
Driver = Callable[..., None]


def eigvalsh(stack: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of contiguous float64 matrices of shape ``(R, M, M)``, ascending in each row, ``(R, M)``.

    LAPACK overwrites the matrices.

    Raises:
        LinAlgError: If the eigenvalues of a matrix do not converge.

    Notes:
        Small matrices go to LAPACK's ``dsyevd``, as in ``numpy.linalg.eigvalsh``, but through scipy's interface for compiled
        code. numpy (2.4) lets only one thread at a time into LAPACK, and scipy's own functions hold Python's lock: with either,
        two threads that each decompose 30 matrices of 384 x 384 take twice as long as one thread. Through this interface they
        take as long as one (measured on two cores), and no matrix is copied.

        ``dsyevd`` spends most of its time on products of the matrix with one vector, which wait for memory. Two ways avoid them
        by reducing the matrix to a band first, with products of matrices, and the band to three diagonals: MKL's ``dsyevd``,
        which torch carries, and LAPACK's ``dsyevd_2stage``, which the OpenBLAS in scipy's wheels carries. The eigenvalues differ
        by rounding: by 1e-14 of the largest one at 4096 rows.
    """
    M = stack.shape[1]
    if M >= MKL_FROM and _mkl_is_fast():
        return _of_torch(stack)
    if M > MAX_ROWS:
        return np.linalg.eigvalsh(stack)
    if M >= TWO_STAGE_FROM and (two_stage := _dsyevd_2stage()) is not None:
        return _run(two_stage, stack, _workspace(two_stage, stack))
    dsyevd = _dsyevd()
    return np.linalg.eigvalsh(stack) if dsyevd is None else _run(dsyevd, stack, max(2 * M + 1, 64 * M))


def eigenvalues_and_leading_vectors(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the eigenvalues of a contiguous float64 matrix as ``eigvalsh`` does, and leading eigenvectors if they cost little.

    The vectors have shape ``(M, count)``, the one of the largest eigenvalue first. LAPACK overwrites the matrix.

    Raises:
        LinAlgError: If the eigenvalues do not converge.

    Notes:
        Most of the time of ``dsyevd``, and of any driver that finds a few vectors, goes to one and the same reduction to three
        diagonals. This function does it once, and goes on as ``dsyevd`` does for the eigenvalues, to the last bit. Inverse
        iteration for 10 vectors and their transformation back take a tenth of the whole at 384 rows.

        There are no vectors if another driver than ``dsyevd`` finds the eigenvalues, if all of them are asked for, or if the
        three diagonals fall into blocks, as those of a matrix with equal eigenvalues do: inverse iteration would have to be told
        the block of each eigenvalue.
    """
    M = len(matrix)
    if not 0 < count < M or M >= MKL_FROM or _dsyevd() is None:
        return eigvalsh(matrix[None])[0], None
    diagonal, off_diagonal, factors, work = np.empty(M), np.empty(M), np.empty(M), np.empty(64 * M)
    _lapack("dsytrd", b"L", M, matrix, M, diagonal, off_diagonal, factors, work, len(work))
    evals = diagonal.copy()
    if info := _lapack("dsterf", M, evals, off_diagonal.copy()):  # overwrites both
        raise np.linalg.LinAlgError(f"eigenvalues did not converge (LAPACK's dsterf: info {info})")
    # where LAPACK's dstebz would begin a new block
    small = np.finfo(np.float64).eps ** 2 * np.abs(diagonal[1:] * diagonal[:-1]) + np.finfo(np.float64).tiny
    if not (off_diagonal[:-1] ** 2 >= small).all():
        return evals, None
    vectors, failed = np.empty((count, M)), np.empty(count, dtype=np.intc)
    block, end, iwork = np.ones(M, dtype=np.intc), np.full(M, M, dtype=np.intc), np.empty(M, dtype=np.intc)
    info = _lapack(
        "dstein", M, diagonal, off_diagonal, count, evals[-count:].copy(), block, end, vectors, M, work, iwork, failed
    )
    if info:
        return evals, None
    _lapack("dormtr", b"L", b"L", b"N", M, count, matrix, M, factors, vectors, M, work, len(work))
    return evals, vectors[::-1].T


def _of_torch(stack: np.ndarray) -> np.ndarray:
    """Return the eigenvalues that torch's LAPACK finds for each matrix."""
    try:
        return torch.linalg.eigvalsh(torch.from_numpy(stack)).numpy()
    except torch.linalg.LinAlgError as err:
        raise np.linalg.LinAlgError(f"eigenvalues did not converge ({err})") from err


def _run(driver: Driver, stack: np.ndarray, workspace: int) -> np.ndarray:
    """Return the eigenvalues of each matrix, which the driver overwrites; it works in so many float64 numbers."""
    evals, work = np.empty(stack.shape[:2]), np.empty(workspace)
    for matrix, row in zip(stack, evals, strict=True):
        info = _call(driver, matrix, row, work, workspace)
        if info:
            raise np.linalg.LinAlgError(f"eigenvalues did not converge (LAPACK's dsyevd: info {info})")
    return evals


def _workspace(driver: Driver, stack: np.ndarray) -> int:
    """Return how many float64 numbers the driver wants to work in, by its own account."""
    answer = np.empty(1)
    _call(driver, stack[0], np.empty(stack.shape[1]), answer, -1)
    return int(answer[0])


def _call(driver: Driver, matrix: np.ndarray, evals: np.ndarray, work: np.ndarray, lwork: int) -> int:
    """Let the driver fill ``evals``, or answer in ``work`` if ``lwork`` is -1, and return LAPACK's error code."""
    iwork = np.empty(1, dtype=np.intc)
    n, size, one, info = (ctypes.c_int(value) for value in (len(evals), lwork, 1, 0))
    driver(
        b"N", b"L", ctypes.byref(n), matrix.ctypes.data, ctypes.byref(n), evals.ctypes.data,
        work.ctypes.data, ctypes.byref(size), iwork.ctypes.data, ctypes.byref(one), ctypes.byref(info),
    )  # fmt: skip
    return info.value


@lru_cache(maxsize=1)
def _dsyevd() -> Driver | None:
    """Return ``dsyevd`` as a function of addresses that releases Python's lock, or None if its integers are not C ints."""
    address, signature = _found_in_scipy("dsyevd")
    return None if signature.count(b", int *") != NUM_INT_POINTERS else _of_address(address)


def _lapack(name: str, *arguments: np.ndarray | bytes | int) -> int:
    """Call a routine of scipy's LAPACK with these arguments, an array where it wants to write, and return its error code."""
    passed: list[Any] = [
        argument.ctypes.data_as(ctypes.c_void_p)
        if isinstance(argument, np.ndarray)
        else ctypes.byref(ctypes.c_char(argument) if isinstance(argument, bytes) else ctypes.c_int(argument))
        for argument in arguments
    ]
    info = ctypes.c_int(0)
    _routine(name, len(passed) + 1)(*passed, ctypes.byref(info))
    return info.value


@cache
def _routine(name: str, num_arguments: int) -> Callable[..., None]:
    """Return a routine of scipy's LAPACK as a function of addresses that releases Python's lock."""
    address, signature = _found_in_scipy(name)
    assert signature.count(b",") + 1 == num_arguments, signature
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * num_arguments)(address)


def _found_in_scipy(name: str) -> tuple[int, bytes]:
    """Return the address of a routine of scipy's LAPACK, and its signature in C."""
    python: Any = ctypes.pythonapi
    python.PyCapsule_GetName.restype = ctypes.c_char_p
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    capsule = ctypes.py_object(cython_lapack.__pyx_capi__[name])
    signature: bytes = python.PyCapsule_GetName(capsule)
    return python.PyCapsule_GetPointer(capsule, ctypes.c_char_p(signature)), signature


@lru_cache(maxsize=1)
def _dsyevd_2stage() -> Driver | None:
    """Return ``dsyevd_2stage`` of the OpenBLAS in scipy's wheels, or None if there is no such library.

    Only these wheels give it this name, and its integers are C ints: those of the other OpenBLAS, in numpy's wheels, have 64
    bits, and its names end in ``64_``.
    """
    for library in blas_libraries():
        with suppress(AttributeError):
            return _of_address(ctypes.cast(library.scipy_dsyevd_2stage_, ctypes.c_void_p).value or 0)
    return None


def _of_address(address: int) -> Driver:
    """Return the driver at an address as a function that releases Python's lock."""
    characters, rest = [ctypes.c_char_p] * 2, [ctypes.c_void_p] * 9
    return ctypes.CFUNCTYPE(None, *characters, *rest)(address)


@lru_cache(maxsize=1)
def _mkl_is_fast() -> bool:
    """Return whether torch computes with MKL on a processor of Intel's; on others MKL was never measured here."""
    if not torch.backends.mkl.is_available():
        return False
    with suppress(OSError):
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    return "GenuineIntel" in platform.processor()
