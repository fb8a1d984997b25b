"""Eigenvalues agree with numpy's, from one thread and from several at once."""

import threading
from contextlib import suppress

import numpy as np
import pytest

from htsr.spectra import lapack
from htsr.spectra.lapack import eigvalsh


@pytest.mark.parametrize("M", [1, 2, 3, 31, 200])
def test_eigenvalues_are_numpys(M):
    A = np.random.default_rng(M).normal(size=(3, M, M))
    stack = A @ A.transpose(0, 2, 1)
    assert np.allclose(eigvalsh(stack.copy()), np.linalg.eigvalsh(stack), rtol=1e-12, atol=1e-12 * M)


def test_scale_does_not_matter():
    A = np.random.default_rng(0).normal(size=(40, 40))
    plain = eigvalsh((A @ A.T)[None].copy())
    for scale in (1e-280, 1e280):
        assert np.allclose(eigvalsh((A @ A.T * scale)[None]) / scale, plain, rtol=1e-12, atol=1e-10)


def test_what_is_not_finite_is_an_error_or_stays_so():
    with suppress(np.linalg.LinAlgError):
        assert np.isnan(eigvalsh(np.full((1, 50, 50), np.nan))).all()


def test_more_rows_than_32_bits_can_place_go_to_numpy(monkeypatch):
    monkeypatch.setattr(lapack, "MAX_ROWS", 3)
    stack = np.diag([4.0, 3.0, 2.0, 1.0])[None]
    assert (eigvalsh(stack) == [[1, 2, 3, 4]]).all()
    assert (stack[0] == np.diag([4.0, 3.0, 2.0, 1.0])).all()


def test_a_scipy_that_counts_otherwise_is_left_alone(monkeypatch):
    assert lapack._dsyevd() is not None
    monkeypatch.setattr(lapack, "NUM_INT_POINTERS", 5)
    assert lapack._dsyevd.__wrapped__() is None
    monkeypatch.setattr(lapack, "_dsyevd", lambda: None)
    assert (eigvalsh(np.diag([2.0, 1.0])[None]) == [[1, 2]]).all()


def test_many_threads_at_once():
    A = np.random.default_rng(0).normal(size=(4, 120, 120))
    stack = A @ A.transpose(0, 2, 1)
    expected, wrong = np.linalg.eigvalsh(stack), []

    def work(number):
        for _ in range(20):
            found = eigvalsh(stack[number][None].copy())
            if not np.allclose(found[0], expected[number], rtol=1e-11):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
