"""The bidiagonal model against dense matrices."""

import numpy as np
import pytest
from scipy import stats

from htsr.bulk.wishart import wishart_eigenvalues


@pytest.mark.parametrize(("N", "M"), [(12, 12), (30, 12), (8, 2)])
def test_same_law_as_the_dense_matrix(N, M):
    rng = np.random.default_rng(0)
    ours = np.array([wishart_eigenvalues(N, M, rng) for _ in range(2000)])
    W = rng.normal(size=(2000, N, M))
    dense = np.linalg.eigvalsh(W.transpose(0, 2, 1) @ W)
    assert (np.diff(ours, axis=1) >= 0).all()
    for column in (0, M // 2, M - 1):
        assert stats.ks_2samp(ours[:, column], dense[:, column]).pvalue > 0.001
    assert ours.sum(axis=1).mean() == pytest.approx(N * M, rel=0.01)
