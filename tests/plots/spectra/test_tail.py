"""How well a power law fits: ranks, quantiles, and Hill's estimate."""

import numpy as np
import pytest

import htsr
from htsr.plots import hill_curve, plot_ccdf, plot_hill, plot_qq, tail_ranks
from htsr.plots.spectra.hill import noise_values
from tests.conftest import pareto


@pytest.fixture(scope="module")
def fit():
    return htsr.fit_power_law(pareto(2.5, 60).numpy(), xmin=1.0)


def test_the_band_is_that_of_draws_from_the_law(fit):
    draws = fit.xmin * (1 - np.random.default_rng(0).random((20_000, fit.n_tail))) ** (-1 / (fit.alpha - 1))
    draws.sort(axis=1)
    ranks = tail_ranks(fit)
    expected = np.quantile(draws, [0.5, 0.025, 0.975], axis=0)
    for band, quantile in zip((ranks.expected, ranks.low, ranks.high), expected, strict=True):
        np.testing.assert_allclose(band[:50], quantile[:50], rtol=0.03)
    np.testing.assert_array_equal(ranks.values, fit.tail)
    np.testing.assert_allclose(ranks.share, 1 - np.arange(fit.n_tail) / fit.n_tail)


def test_pictures_show_the_ranks(fit):
    ranks = tail_ranks(fit)
    tail = {"ccdf": plot_ccdf(fit).lines[-1], "qq": plot_qq(fit).lines[-1]}
    np.testing.assert_array_equal(tail["ccdf"].get_xydata(), np.c_[ranks.values, ranks.share])
    np.testing.assert_array_equal(tail["qq"].get_xydata(), np.c_[ranks.expected, ranks.values])


def test_hill_for_every_k_is_the_estimator(fit):
    k, alpha = hill_curve(fit.values)
    assert list(k) == list(range(1, fit.n))
    np.testing.assert_allclose(alpha[[0, 9, 30, -1]], [htsr.tails.hill(fit.values, i) for i in (1, 10, 31, fit.n - 1)])
    k, alpha = hill_curve([1, 2, 4, 4, 4, 0])
    assert np.isnan(alpha[:2]).all()
    assert alpha[2] == pytest.approx(htsr.tails.hill([1, 2, 4, 4, 4], 3))


@pytest.mark.parametrize(("Q", "alpha"), [(1, 2.12), (2, 2.71), (4, 3.46), (8, 4.47)])
def test_the_curve_of_noise_passes_through_its_known_values(Q, alpha):
    values = noise_values(1000 * Q, 1000, 1000)
    assert hill_curve(values)[1][499] == pytest.approx(alpha, abs=0.03)


def test_hill_draws_noise_only_where_the_shape_is_known(fit):
    spectrum = htsr.Spectrum(fit.values, (90, 60))
    assert [line.get_label() for line in plot_hill(spectrum, fit).lines] == [
        "Hill",
        "noise (Marchenko-Pastur)",
        f"fit, alpha {fit.alpha:.2f}",
    ]
    assert [line.get_label() for line in plot_hill(fit.values).lines] == ["Hill"]
    with pytest.raises(ValueError, match="three different positive values"):
        plot_hill([1.0, 1.0])


def test_the_fit_draws_itself(fit):
    for kind in ("ccdf", "qq", "xmin", "hill", "esd"):
        assert fit.plot(kind, title="w").axes
    with pytest.raises(ValueError, match="expected kind='ccdf', 'qq'"):
        fit.plot("tail")
    with pytest.raises(ValueError, match="no fit to draw: 1 distinct"):
        htsr.fit_power_law([1.0]).plot()
