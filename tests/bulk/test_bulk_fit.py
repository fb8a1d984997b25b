"""The fitted bulk agrees with matrices of known noise, with and without spikes."""

import numpy as np
import pytest

from htsr import InputError, Spectrum, fit_marchenko_pastur
from htsr.bulk.marchenko_pastur import edges

SHAPES = [(300, 300), (301, 300), (600, 300), (1024, 128), (96, 64)]


def noise(N, M, seed=0, sigma=1.0):
    return np.random.default_rng(seed).normal(scale=sigma, size=(N, M))


def evals(W):
    return np.linalg.eigvalsh(W.T @ W).clip(0)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("sigma", [1.0, 0.02])
def test_pure_noise(N, M, sigma):
    fit = fit_marchenko_pastur(evals(noise(N, M, sigma=sigma)), N, M)
    assert fit.sigma == pytest.approx(sigma, abs=4 * fit.sigma_error)
    assert fit.sigma_error == pytest.approx(0.75 * fit.sigma / np.sqrt(N * M))
    assert fit.num_spikes == 0
    assert fit.softrank == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_one_spike_with_most_of_the_energy_does_not_move_the_bulk(N, M, share):
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=N), rng.normal(size=M)
    spike = np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v)) * np.sqrt(share / (1 - share) * N * M)
    fit = fit_marchenko_pastur(evals(noise(N, M) + spike), N, M)
    assert fit.edge_high == pytest.approx(edges(N, M)[1], rel=0.02 if M > 200 else 0.05)
    assert fit.num_spikes == 1
    assert fit.spike_strengths == pytest.approx([np.linalg.norm(spike)], rel=0.05)


def test_many_spikes():
    rng = np.random.default_rng(2)
    U, V = np.linalg.qr(rng.normal(size=(600, 40)))[0], np.linalg.qr(rng.normal(size=(300, 40)))[0]
    fit = fit_marchenko_pastur(evals(noise(600, 300) + 80 * U @ V.T), 600, 300)
    assert fit.num_spikes == 40
    assert fit.sigma == pytest.approx(1, rel=0.01)
    assert fit.spike_strengths == pytest.approx(np.full(40, 80.0), rel=0.15)


@pytest.mark.parametrize(("N", "M"), [(16, 16), (32, 32), (64, 64), (64, 32), (100, 60)])
def test_false_alarms_are_as_rare_as_stated(N, M):
    """About 1 of 100 noise matrices shows a spike: 5 or fewer of 200 with a probability of 98 %, 8 with 99.98 %."""
    alarms = sum(fit_marchenko_pastur(evals(noise(N, M, seed)), N, M).num_spikes > 0 for seed in range(200))
    assert alarms <= 8


def test_false_alarms_of_pooled_convolutions():
    draws = (np.random.default_rng(seed).normal(size=(16, 16, 3, 3)) for seed in range(200))
    assert sum(fit_marchenko_pastur(Spectrum.from_weight(W), 16, 16).num_spikes > 0 for W in draws) <= 8


@pytest.mark.parametrize(("draw", "kurtosis"), [("laplace", 3.0), ("uniform", -1.2)])
@pytest.mark.parametrize(("N", "M"), [(64, 64), (128, 64)])
def test_entries_that_are_not_normal(draw, kurtosis, N, M):
    """About 2 false alarms of 200 with the kurtosis told; Laplace entries give 20 to 40 without."""
    rng = np.random.default_rng(4)
    spectra = [evals(getattr(rng, draw)(size=(N, M)) - 0.5 * (draw == "uniform")) for _ in range(200)]
    assert sum(fit_marchenko_pastur(x, N, M, kurtosis=kurtosis).num_spikes > 0 for x in spectra) <= 8
    if draw == "laplace":
        assert sum(fit_marchenko_pastur(x, N, M).num_spikes > 0 for x in spectra) > 12


def test_sigma_is_unbiased_and_its_error_is_the_spread():
    fits = [fit_marchenko_pastur(evals(noise(128, 64, seed)), 128, 64) for seed in range(300)]
    sigmas = np.array([fit.sigma for fit in fits])
    assert sigmas.mean() == pytest.approx(1, abs=3 * fits[0].sigma_error / np.sqrt(300))
    assert sigmas.std() == pytest.approx(fits[0].sigma_error, rel=0.15)


def test_a_bulk_that_is_none_stays_with_the_robust_estimate():
    """Three tenths of the columns half as large again: they carry off the nine tenths, the lower half less so."""
    W = noise(400, 200) * np.where(np.arange(200) < 60, 1.5, 1)
    fit = fit_marchenko_pastur(evals(W), 400, 200)
    assert fit.sigma_error == pytest.approx(fit.sigma * 1.25 / np.sqrt(400 * 200))
    assert fit.D > 0.03


def test_nothing_happens_at_q_one():
    """One row more or less moves sigma by no more than its error."""
    W = noise(301, 300, seed=5)
    square, tall = fit_marchenko_pastur(evals(W[:300]), 300, 300), fit_marchenko_pastur(evals(W), 301, 300)
    assert abs(square.sigma - tall.sigma) < 2 * square.sigma_error


def test_a_wider_level_finds_more():
    spectra = [evals(noise(60, 60, seed)) for seed in range(200)]
    found = sum(fit_marchenko_pastur(x, 60, 60, level=0.9).num_spikes > 0 for x in spectra)
    assert 8 <= found <= 36  # of 200 at 10 %
    with pytest.raises(ValueError, match="level between 0 and 1"):
        fit_marchenko_pastur(spectra[0], 60, 60, level=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan] * 50, "finite eigenvalues"),
        ([-1.0] * 25 + [1.0] * 25, "smallest is -1"),
        ([1.0] * 49, "k M eigenvalues"),
        (np.ones((5, 10)), "a row of real"),
        (np.ones(50, complex), "a row of real"),
    ],
)
def test_what_is_no_spectrum_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        fit_marchenko_pastur(values, 60, 50)


@pytest.mark.parametrize("kurtosis", [np.nan, np.inf, -3.0])
def test_what_is_no_kurtosis_is_refused(kurtosis):
    with pytest.raises(ValueError, match="kurtosis"):
        fit_marchenko_pastur(np.ones(50), 60, 50, kurtosis=kurtosis)


def test_rounding_below_zero_is_zero():
    W = noise(300, 290) @ noise(290, 300, seed=1)
    raw = np.linalg.eigvalsh(W.T @ W)
    assert raw[0] < 0
    assert repr(fit_marchenko_pastur(raw, 300, 300)) == repr(fit_marchenko_pastur(raw.clip(0), 300, 300))


def test_a_flat_spectrum_is_no_bulk():
    assert fit_marchenko_pastur(np.ones(100), 200, 100) is None


def test_pooled_convolution_slices():
    W = np.random.default_rng(3).normal(size=(64, 32, 3, 3))
    fit = fit_marchenko_pastur(Spectrum.from_weight(W), 64, 32)
    assert fit.sigma == pytest.approx(1, rel=0.01)
    assert fit.num_spikes == 0


@pytest.mark.parametrize(
    ("values", "N", "M"), [([1.0, 2.0], 5, 2), (np.zeros(50), 60, 50), ([0.0] * 30 + [1.0] * 20, 60, 50)]
)
def test_no_bulk_no_fit(values, N, M):
    assert fit_marchenko_pastur(values, N, M) is None


def test_a_spectrum_far_from_noise_has_no_bulk():
    assert fit_marchenko_pastur(np.geomspace(1e-6, 1, 200), 200, 200) is None
