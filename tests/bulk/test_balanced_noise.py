"""The laws of balanced noise hold for entries of any law, and the statistics are what their formulas say."""

import numpy as np
import pytest

from htsr.bulk.balance import balanced
from htsr.bulk.balanced_noise import (
    BalancedNoise,
    largest_eigenvalue,
    neighbour_scores,
    pair_p_value,
    pair_sum,
    small_gram,
)


@pytest.mark.parametrize("shape", [(9, 7), (7, 9)])
def test_pair_sum_is_the_sum_over_pairs(shape):
    Y = np.random.default_rng(0).normal(size=shape)
    direct = sum(
        Y[k, i] * Y[k, j] * Y[o, i] * Y[o, j]
        for k in range(shape[0])
        for o in range(shape[0])
        for i in range(shape[1])
        for j in range(shape[1])
        if k != o and i != j
    )
    assert pair_sum(Y, small_gram(Y)) == pytest.approx(direct)


def test_largest_eigenvalue_is_exact_enough_for_noise():
    """An error of a hundredth of what the eigenvalue fluctuates by moves no p-value."""
    for M in (24, 200, 500):
        W = np.random.default_rng(M).normal(size=(M, M)).astype(np.float32)
        width = 2 * np.sqrt(M) * (2 / np.sqrt(M)) ** (1 / 3)
        assert largest_eigenvalue(W.T @ W) == pytest.approx(np.linalg.eigvalsh(W.T @ W)[-1], abs=0.05 * width)
    assert largest_eigenvalue(np.eye(20, dtype=np.float32)) == pytest.approx(1)


DRAWS = {
    "signs": lambda rng, n, m: rng.choice([-1.0, 1.0], size=(n, m)),
    "normal": lambda rng, n, m: rng.normal(size=(n, m)),
    "t(3)": lambda rng, n, m: rng.standard_t(3, size=(n, m)),
    "skewed": lambda rng, n, m: rng.exponential(size=(n, m)) - 1,
    "mask": lambda rng, n, m: rng.normal(size=(n, m)) * (rng.random((n, m)) < 0.2),
}


@pytest.mark.parametrize("name", DRAWS)
def test_laws_hold(name):
    """Of 100 draws, 10 % have a p-value below 0.1, up to three standard errors, and the scores have mean 0."""
    rng, tops, pairs, scores = np.random.default_rng(3), [], [], []
    for _ in range(100):
        matrix = balanced(DRAWS[name](rng, 48, 40))
        noise, gram = BalancedNoise.like(matrix), small_gram(matrix.Y_nm)
        tops.append(noise.share_above(largest_eigenvalue(gram)))
        pairs.append(pair_p_value(pair_sum(matrix.Y_nm, gram), [noise]))
        scores.append(neighbour_scores(matrix.Y_nm))
    for p_values in (tops, pairs):
        assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.09)
        assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)
    assert np.mean(scores, axis=0) == pytest.approx(0, abs=0.4)
    assert np.std(scores, axis=0) == pytest.approx(1, abs=0.35) if name != "signs" else True


def test_what_is_not_gaussian_is_told():
    rng = np.random.default_rng(4)
    W = rng.normal(size=(80, 100))
    for bounded in (True, False):
        for weight, scales, normal in (
            (W, False, True),
            (W * rng.lognormal(sigma=0.3, size=100), True, True),
            (rng.uniform(-1, 1, size=(80, 100)), False, False),
        ):
            matrix = balanced(weight, bounded=bounded)
            noise = BalancedNoise.like(matrix)
            assert noise.has_scales(matrix.log_rows_n, matrix.log_columns_m) == scales
            assert noise.is_normal == normal
