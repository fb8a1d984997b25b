"""Metrics against closed forms."""

import numpy as np
import pytest

from htsr.spectra import metrics

EVALS = np.array([0.0, 1.0, 2.0, 4.0, 8.0])


def test_norms():
    assert metrics.spectral_norm(EVALS) == 8
    assert metrics.log_spectral_norm(EVALS) == pytest.approx(np.log10(8))
    assert metrics.log_norm(EVALS) == pytest.approx(np.log10(15))
    assert metrics.alpha_weighted(EVALS, 3.0) == pytest.approx(3 * np.log10(8))
    assert metrics.log_alpha_norm(EVALS, 2.0) == pytest.approx(np.log10(1 + 4 + 16 + 64))


def test_log_alpha_norm_does_not_overflow():
    assert metrics.log_alpha_norm(np.array([1e10, 1e10]), 200.0) == pytest.approx(2000 + np.log10(2))


def test_ranks():
    assert metrics.stable_rank(EVALS) == pytest.approx(15 / 8)
    assert metrics.hard_rank(EVALS) == 4
    assert metrics.effective_rank(np.array([0.0, 0.0, 9.0, 9.0, 9.0])) == pytest.approx(3)


def test_entropy_is_one_for_a_flat_spectrum_and_zero_for_rank_one():
    assert metrics.entropy(np.ones(7)) == pytest.approx(1)
    assert metrics.entropy(np.array([0.0, 0.0, 5.0])) == 0
    assert metrics.entropy(np.array([1.0, 3.0])) == pytest.approx(
        -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(2)
    )


def test_erg_condition_counts_the_value_that_breaks_it():
    evals = np.array([0.01, 0.1, 1.0, 2.0, 4.0])
    scaled = evals[::-1] / evals.mean()
    products = np.cumprod(scaled)
    expected = next(k for k, product in enumerate(products, start=1) if product < 1)
    assert metrics.num_ERG_spikes(evals) == expected


def test_erg_condition_where_a_plain_product_underflows():
    """Quantiles of the Marchenko-Pastur law with Q = 2: the tail is 0.815 n (analytic)."""
    n = 8192
    grid = np.linspace((1 - 0.5**0.5) ** 2, (1 + 0.5**0.5) ** 2, 200_001)
    density = np.sqrt(np.clip((grid[-1] - grid) * (grid - grid[0]), 0, None)) / grid
    evals = np.interp((np.arange(n) + 0.5) / n, np.cumsum(density) / density.sum(), grid)
    assert metrics.num_ERG_spikes(evals) == pytest.approx(0.815 * n, rel=2e-3)


def test_erg_condition_never_broken_counts_all():
    assert metrics.num_ERG_spikes(np.full(10, 3.0)) == 10


def test_erg_condition_with_zeros():
    assert metrics.num_ERG_spikes(np.array([0.0, 0.0, 1.0, 5.0])) == 3


def test_weak_rank_loss():
    def loss(*evals):
        return metrics.weak_rank_loss(np.array(evals))

    assert loss(0, 0, 1, 2) == 2
    assert loss(1e-12, 3e-12, 1, 2) == 2
    assert loss(0, 1e-12, 3e-12, 1, 2) == 3
    assert loss(1.0, 2.0, 3.0) == 0
    assert metrics.weak_rank_loss(np.geomspace(1e-12, 1, 100)) == 0  # no gap, no loss
    assert metrics.weak_rank_loss(1e-30 * np.array([1e-12, 1.0, 1.0])) == 1  # no scale
