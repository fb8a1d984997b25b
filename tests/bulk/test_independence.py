"""Noise of every kind passes for independent entries, and structure does not."""

import numpy as np
import pytest
import torch

from htsr.bulk.independence import NEIGHBOURS, SMALLEST_P, independence


def test_noise_passes_and_its_p_values_are_uniform():
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(80):
        W = (
            rng.standard_t(4, size=(40, 48))
            * rng.lognormal(sigma=0.5 * (seed % 3), size=(40, 1))
            * (rng.random((40, 48)) < 0.7)
        )
        found = independence(torch.from_numpy(W))
        p_values.append(found.p_value)
        assert found.entries
    assert np.mean(np.array(p_values) < 0.05) < 0.15
    assert np.quantile(p_values, 0.25) < 0.45


def autoregressive(rng, n, m):
    W = rng.normal(size=(n, m))
    for i in range(1, n):
        W[i] = 0.3 * W[i - 1] + np.sqrt(0.91) * W[i]
    return W


def block_masked(rng, n, m):
    return rng.normal(size=(n, m)) * np.kron(rng.random((n // 16, m // 16)) < 0.5, np.ones((16, 16)))


def two_of_four(rng, n, m):
    W = rng.normal(size=(n, m // 4, 4))
    return (W * (np.argsort(np.argsort(np.abs(W))) >= 2)).reshape(n, m)


def orthogonal(rng, n, m):
    return np.linalg.qr(rng.normal(size=(n, n)))[0][:, :m]


@pytest.mark.parametrize(
    ("draw", "neighbours"),
    [
        (autoregressive, NEIGHBOURS[:1]),
        (lambda rng, n, m: autoregressive(rng, m, n).T, NEIGHBOURS[1:2]),
        (block_masked, NEIGHBOURS[2:]),
        (two_of_four, NEIGHBOURS[3:]),
        (orthogonal, ("",)),
        (lambda rng, n, m: rng.normal(size=(n, 20)) @ rng.normal(size=(20, m)) + rng.normal(size=(n, m)), ("",)),
        (lambda rng, n, m: np.ones((n, m)), ("", *NEIGHBOURS)),
    ],
)
@pytest.mark.parametrize("shape", [(96, 128), (288, 160)])
def test_structure_is_found_and_named(draw, neighbours, shape):
    found = independence(torch.from_numpy(draw(np.random.default_rng(1), *shape)))
    assert found.p_value == SMALLEST_P
    assert found.neighbours in neighbours


def test_weights_of_any_type_shape_and_size(monkeypatch):
    W = torch.randn(64, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    p = independence(W).p_value
    assert p > 0.01
    assert independence((W * 1e30).double() * 1e-200).p_value == pytest.approx(p, rel=0.01)
    assert independence(W.bfloat16()).p_value > 0.01
    assert independence(torch.randn(15, 300)) is None
    monkeypatch.setattr("htsr.bulk.independence.MAX_ENTRIES", 40 * 300)
    tall = torch.randn(900, 40, generator=torch.Generator().manual_seed(1))
    cut = independence(tall)
    tall[:300] = 0
    assert cut == independence(tall)  # the middle stands for it
    sparse = torch.zeros(64, 64)
    sparse[:10, :10] = torch.randn(10, 10)
    assert independence(sparse) is None
