"""Eigenvalues agree with numpy's, from one thread and from several at once."""

import threading
from contextlib import suppress

import numpy as np
import pytest

from htsr.spectra import lapack
from htsr.spectra.lapack import eigenvalues_and_leading_vectors, eigvalsh


@pytest.mark.parametrize("M", [1, 2, 3, 31, 200])
def test_eigenvalues_are_numpys(M):
    A = np.random.default_rng(M).normal(size=(3, M, M))
    stack = A @ A.transpose(0, 2, 1)
    assert np.allclose(eigvalsh(stack.copy()), np.linalg.eigvalsh(stack), rtol=1e-12, atol=1e-12 * M)


@pytest.mark.parametrize(("M", "count"), [(2, 1), (3, 2), (40, 10), (200, 10)])
@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_leading_vectors_are_eigenvectors_and_the_eigenvalues_stay_the_same(M, count, scale):
    A = np.random.default_rng(M).normal(size=(M, 2 * M)) * np.linspace(1, 3, M)[:, None]
    matrix = scale * A @ A.T
    evals, vectors = eigenvalues_and_leading_vectors(matrix.copy(), count)
    assert (evals == eigvalsh(matrix[None].copy())[0]).all()
    assert vectors.shape == (M, count)
    assert np.abs(vectors.T @ vectors - np.eye(count)).max() < 1e-13
    assert np.abs(matrix @ vectors - vectors * evals[::-1][:count]).max() < 1e-14 * M * evals[-1]


@pytest.mark.parametrize("count", [0, 3, 30])
def test_blocks_and_other_drivers_have_no_leading_vectors(count, monkeypatch):
    blocks = np.zeros((30, 30))
    blocks[:15, :15] = blocks[15:, 15:] = np.ones((15, 15)) + np.diag(np.arange(15.0))
    evals, vectors = eigenvalues_and_leading_vectors(blocks.copy(), count)
    assert vectors is None
    assert np.allclose(evals, np.linalg.eigvalsh(blocks), atol=1e-12)
    for name, value in (("MKL_FROM", 20), ("_dsyevd", lambda: None)):
        monkeypatch.setattr(lapack, name, value)
        full = np.ones((30, 30)) + np.diag(np.arange(30.0))
        evals, vectors = eigenvalues_and_leading_vectors(full.copy(), count)
        assert vectors is None
        assert np.allclose(evals, np.linalg.eigvalsh(full), atol=1e-12)
        monkeypatch.undo()


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


@pytest.mark.parametrize("R", [1, 2])
@pytest.mark.parametrize("intel", [True, False])
@pytest.mark.parametrize("M", [1, 2, 3, 31, 200])
def test_every_way_gives_the_same_eigenvalues(monkeypatch, M, intel, R):
    monkeypatch.setattr(lapack, "MKL_FROM", 1)
    monkeypatch.setattr(lapack, "TWO_STAGE_FROM", 1)
    monkeypatch.setattr(lapack, "_mkl_is_fast", lambda: intel)
    A = np.random.default_rng(M).normal(size=(R, M, M)) * np.geomspace(1, 1e-3, M)
    stack = A.transpose(0, 2, 1) @ A
    expected = np.linalg.eigvalsh(stack)
    assert abs(eigvalsh(stack.copy()) - expected).max() < 1e-14 * max(M, 10) * expected.max()


def test_large_matrices_take_the_fast_ways(monkeypatch):
    taken = []
    monkeypatch.setattr(lapack, "_of_torch", lambda stack: taken.append("mkl"))
    monkeypatch.setattr(lapack, "_run", lambda driver, stack, workspace: taken.append(driver))
    monkeypatch.setattr(lapack, "_workspace", lambda driver, stack: 1)
    for intel in (True, False):
        monkeypatch.setattr(lapack, "_mkl_is_fast", lambda intel=intel: intel)
        for M in (lapack.MKL_FROM - 1, lapack.MKL_FROM, lapack.TWO_STAGE_FROM):
            eigvalsh(np.broadcast_to(0.0, (1, M, M)))
    two_stage = lapack._dsyevd_2stage()
    assert two_stage is not None  # scipy's wheels have it
    assert taken == [lapack._dsyevd(), "mkl", "mkl", lapack._dsyevd(), lapack._dsyevd(), two_stage]


def test_without_the_two_stage_reduction_large_matrices_are_decomposed_as_small_ones(monkeypatch):
    monkeypatch.setattr(lapack, "blas_libraries", lambda: [object()])
    assert lapack._dsyevd_2stage.__wrapped__() is None
    monkeypatch.setattr(lapack, "_dsyevd_2stage", lambda: None)
    monkeypatch.setattr(lapack, "_mkl_is_fast", lambda: False)
    monkeypatch.setattr(lapack, "TWO_STAGE_FROM", 1)
    assert (eigvalsh(np.diag([2.0, 1.0])[None]) == [[1, 2]]).all()


def test_mkl_is_taken_on_intel_alone(monkeypatch, tmp_path):
    asked = lapack._mkl_is_fast.__wrapped__
    monkeypatch.setattr(lapack.torch.backends.mkl, "is_available", lambda: True)
    for vendor in ("GenuineIntel", "AuthenticAMD"):
        (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\n")
        monkeypatch.setattr(lapack, "Path", lambda _: tmp_path / "cpuinfo")
        assert asked() == (vendor == "GenuineIntel")
        monkeypatch.setattr(lapack, "Path", lambda _: tmp_path / "no")  # as on Windows
        monkeypatch.setattr(lapack.platform, "processor", lambda vendor=vendor: f"Model 85, {vendor}")
        assert asked() == (vendor == "GenuineIntel")
    monkeypatch.setattr(lapack.torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr(lapack.platform, "processor", lambda: "GenuineIntel")
    assert not asked()
