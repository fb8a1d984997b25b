"""Balanced matrices have equal rows and columns, and forget what was multiplied in."""

import numpy as np
import pytest

from htsr.bulk.balance import BOUND, balanced


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("shape", [(40, 60), (90, 30)])
def test_rows_and_columns_are_equal_whatever_their_scales(shape, bounded):
    rng = np.random.default_rng(0)
    W = rng.standard_t(4, size=shape)
    rows, columns = rng.lognormal(sigma=2, size=(shape[0], 1)), rng.lognormal(sigma=2, size=shape[1])
    plain, scaled = balanced(W, bounded=bounded), balanced(W * rows * columns * 1e-150, bounded=bounded)
    for axis in (0, 1):
        assert np.square(scaled.Y_nm).mean(axis) == pytest.approx(1, abs=0.02)
    assert scaled.Y_nm == pytest.approx(plain.Y_nm, abs=0.05)
    assert np.corrcoef(scaled.log_rows_n - plain.log_rows_n, np.log(rows.ravel()))[0, 1] > 0.999
    assert np.corrcoef(scaled.log_columns_m - plain.log_columns_m, np.log(columns))[0, 1] > 0.999


def test_entries_are_bounded_and_centred():
    W = np.random.default_rng(1).standard_t(2, size=(50, 50)) + 0.1
    Y = balanced(W).Y_nm
    assert np.abs(Y).max() < 2 * BOUND
    assert abs(Y.mean()) < 0.05
    assert np.abs(balanced(W, bounded=False).Y_nm).max() > 2 * BOUND


def test_zeros_and_constants():
    W = np.random.default_rng(2).normal(size=(30, 20))
    W[4], W[:, 7] = 0, 0
    assert balanced(W).Y_nm.shape == (29, 19)
    assert balanced(np.zeros((20, 20))).Y_nm.size == 0
    for constant in (np.ones((20, 20)), np.outer(np.arange(1.0, 21), np.arange(1.0, 21))):
        assert balanced(constant).Y_nm == pytest.approx(1)
