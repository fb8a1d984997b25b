"""Kurtosis against scipy and known laws."""

import numpy as np
import pytest
import torch
from scipy import stats

from htsr.bulk import excess_kurtosis


def test_against_scipy():
    W = torch.from_numpy(np.random.default_rng(0).laplace(loc=0.3, size=(40, 60)))
    assert excess_kurtosis(W) == pytest.approx(stats.kurtosis(W.flatten()), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_scale_no_shift(dtype):
    W = torch.randn(300, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert excess_kurtosis((1e-20 * W).to(dtype)) == pytest.approx(excess_kurtosis(W), abs=0.01)
    assert excess_kurtosis(W + 5) == pytest.approx(excess_kurtosis(W), abs=1e-9)


def test_a_trap_does_not_count():
    W = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = excess_kurtosis(W)
    W[3, 5] = 40
    assert excess_kurtosis(W) == pytest.approx(clean, abs=0.05)


@pytest.mark.parametrize("shape", [(5000, 200), (200, 5000), (64, 64, 16, 16)])
def test_a_sample_stands_for_a_large_weight(shape):
    W = torch.from_numpy(np.random.default_rng(0).uniform(size=shape))
    assert excess_kurtosis(W) == pytest.approx(-1.2, abs=0.02)


def test_constant():
    assert excess_kurtosis(torch.ones(4, 4)) == 0
