"""The noise bulk: against matrices of known noise, with and without spikes."""

import numpy as np
import pytest
from scipy import integrate

from htsr import Spectrum, fit_marchenko_pastur
from htsr.bulk.marchenko_pastur import bulk_median

SHAPES = [(300, 300), (301, 300), (600, 300), (1024, 128), (96, 64)]


def noise(N, M, seed=0, sigma=1.0):
    return np.random.default_rng(seed).normal(scale=sigma, size=(N, M))


def few_parts_in(M):
    """How well the median of M eigenvalues, which repel each other, is known: measured 0.3 to 1.3 / M, one sd."""
    return 5 / M


def evals(W):
    return np.linalg.eigvalsh(W.T @ W).clip(0)


@pytest.mark.parametrize("ratio", [1.0, 0.75, 0.5, 0.1])
def test_median_against_direct_integration(ratio):
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    median = bulk_median(ratio)

    def density(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * ratio * x)

    mass, _ = integrate.quad(density, median, high)
    assert mass == pytest.approx(0.5, abs=2e-6)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("sigma", [1.0, 0.02])
def test_pure_noise(N, M, sigma):
    fit = fit_marchenko_pastur(evals(noise(N, M, sigma=sigma)), N, M)
    assert fit.sigma == pytest.approx(sigma, rel=few_parts_in(M))
    assert fit.num_spikes == 0
    assert fit.softrank == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_one_spike_with_most_of_the_energy_does_not_move_the_bulk(N, M, share):
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=N), rng.normal(size=M)
    spike = np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v)) * np.sqrt(share / (1 - share) * N * M)
    fit = fit_marchenko_pastur(evals(noise(N, M) + spike), N, M)
    assert fit.sigma == pytest.approx(1, rel=few_parts_in(M))
    assert fit.num_spikes == 1


def test_many_spikes():
    rng = np.random.default_rng(2)
    U, V = np.linalg.qr(rng.normal(size=(600, 40)))[0], np.linalg.qr(rng.normal(size=(300, 40)))[0]
    fit = fit_marchenko_pastur(evals(noise(600, 300) + 80 * U @ V.T), 600, 300)
    assert fit.num_spikes == 40
    assert fit.sigma == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(("N", "M"), [(16, 16), (32, 32), (64, 64), (64, 32), (100, 60)])
def test_false_alarms_are_as_rare_as_stated(N, M):
    """About 1 of 100 noise matrices shows a spike: 5 or fewer of 200 with a probability of 98 %, 8 with 99.98 %."""
    alarms = sum(fit_marchenko_pastur(evals(noise(N, M, seed)), N, M).num_spikes > 0 for seed in range(200))
    assert alarms <= 8


def test_false_alarms_of_pooled_convolutions():
    draws = (np.random.default_rng(seed).normal(size=(16, 16, 3, 3)) for seed in range(200))
    assert sum(fit_marchenko_pastur(Spectrum.from_weight(W), 16, 16).num_spikes > 0 for W in draws) <= 8


def test_what_is_no_spectrum_is_refused():
    with pytest.raises(ValueError, match="finite eigenvalues"):
        fit_marchenko_pastur([np.nan] * 50, 60, 50)


def test_pooled_convolution_slices():
    W = np.random.default_rng(3).normal(size=(64, 32, 3, 3))
    fit = fit_marchenko_pastur(Spectrum.from_weight(W), 64, 32)
    assert fit.sigma == pytest.approx(1, rel=0.03)
    assert fit.num_spikes == 0


@pytest.mark.parametrize(
    ("values", "N", "M"), [([1.0, 2.0], 5, 2), (np.zeros(50), 60, 50), ([0.0] * 30 + [1.0] * 20, 60, 50)]
)
def test_no_bulk_no_fit(values, N, M):
    assert fit_marchenko_pastur(values, N, M) is None


def test_a_spectrum_far_from_noise_has_no_bulk():
    assert fit_marchenko_pastur(np.geomspace(1e-6, 1, 200), 200, 200) is None
