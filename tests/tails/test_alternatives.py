"""Comparisons against densities that can be written down."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from htsr import fit_power_law
from htsr.tails import ALTERNATIVES

RNG = np.random.default_rng(0)
PARETO = (1 - RNG.random(500)) ** (-1 / 1.5)
EXPONENTIAL = 1 + RNG.exponential(size=500)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_exponential_in_closed_form(scale):
    fit = fit_power_law(PARETO * scale, xmin=PARETO.min() * scale)
    comparison = fit.compare("exponential")
    tail = fit.tail
    rate = 1 / (tail.mean() - fit.xmin)
    expected = fit.log_likelihood - (len(tail) * math.log(rate) - rate * (tail - fit.xmin).sum())
    assert comparison.parameters["Lambda"] == pytest.approx(rate, rel=1e-3)
    assert comparison.log_likelihood_ratio == pytest.approx(expected, rel=1e-3)


def test_vuong_p_value():
    fit = fit_power_law(EXPONENTIAL, xmin=1.0)
    comparison = fit.compare("exponential")
    rate = comparison.parameters["Lambda"]
    tail = fit.tail
    d = (math.log(fit.alpha - 1) - fit.alpha * np.log(tail)) - (math.log(rate) - rate * (tail - 1))
    z = d.sum() / (math.sqrt(len(d)) * d.std())
    assert comparison.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-2)
    assert comparison.favours == "exponential"


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_lognormal_parameters_come_back_in_units_of_the_data(scale):
    x = np.random.default_rng(1).lognormal(mean=1.0, sigma=0.5, size=800) * scale
    comparison = fit_power_law(x, xmin=float(x.min())).compare("lognormal")
    assert comparison.parameters["mu"] == pytest.approx(1 + math.log(scale), abs=0.1)
    assert comparison.parameters["sigma"] == pytest.approx(0.5, abs=0.05)
    assert comparison.favours == "lognormal"


def test_stretched_exponential_recovers_its_shape():
    x = np.random.default_rng(2).weibull(0.7, size=2000) * 3.0
    comparison = fit_power_law(x, xmin=float(np.quantile(x, 0.05))).compare("stretched_exponential")
    assert comparison.parameters["beta"] == pytest.approx(0.7, abs=0.08)
    assert 1 / comparison.parameters["Lambda"] == pytest.approx(3.0, rel=0.2)


def test_truncated_power_law_nests_the_power_law():
    pure = fit_power_law(PARETO, xmin=1.0).compare("truncated_power_law")
    assert pure.log_likelihood_ratio <= 0
    assert pure.p_value == pytest.approx(stats.chi2.sf(-2 * pure.log_likelihood_ratio, 1), abs=1e-9)
    assert pure.favours == "neither"
    cut = PARETO[PARETO < 4]
    assert fit_power_law(cut, xmin=1.0).compare("truncated_power_law").favours == "truncated_power_law"


def test_a_truncated_power_law_may_be_steeper_than_three():
    """powerlaw 2.0 keeps its alpha below 3 if it is not told otherwise."""
    x = (1 - np.random.default_rng(3).random(800)) ** (-1 / 4.0)
    assert fit_power_law(x, xmin=1.0).compare("truncated_power_law").parameters["alpha"] > 4


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_a_far_value_does_not_break_the_comparison(name):
    comparison = fit_power_law(np.r_[PARETO, 1e9], xmin=1.0).compare(name)
    assert math.isfinite(comparison.log_likelihood_ratio)
    assert 0 <= comparison.p_value <= 1


def test_refusals():
    with pytest.raises(ValueError, match="got 'gamma'"):
        fit_power_law(PARETO).compare("gamma")
    with pytest.raises(ValueError, match="there is no fit to compare: 2 distinct"):
        fit_power_law([1.0, 2.0]).compare("lognormal")


@pytest.mark.parametrize("spread", [0.5, 0.01, 1e-4])
@pytest.mark.parametrize("name", ["truncated_power_law", "stretched_exponential", "lognormal"])
def test_steep_tails_give_no_false_verdict(spread, name):
    """alpha of hundreds and more, where powerlaw's densities overflow and its optimizers stop short."""
    for seed in range(3):
        fit = fit_power_law(1 + spread * np.random.default_rng(seed).random(300))
        comparison = fit.compare(name)
        assert comparison.favours in ("neither", name)
        assert not math.isinf(comparison.log_likelihood_ratio)
        if math.isnan(comparison.log_likelihood_ratio):
            assert comparison.favours == "neither"


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_extreme_ranges_do_not_warn(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = fit_power_law(np.geomspace(1e-308, 1e308, 60)).compare(name)
    assert not math.isinf(comparison.log_likelihood_ratio)


def test_the_e_tpl_of_the_literature_is_the_truncated_fit_from_the_peak_on():
    rng = np.random.default_rng(5)
    fit = fit_power_law(np.r_[rng.lognormal(0, 0.3, 300), 1.2 * (1 - rng.random(200)) ** (-1 / 2)], xmin="peak")
    comparison = fit.compare("truncated_power_law")
    assert comparison.parameters["alpha"] <= fit.alpha + 0.05  # the cut-off takes over a part of the decay
    assert comparison.parameters["Lambda"] >= 0
