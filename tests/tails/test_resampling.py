"""Intervals and goodness of fit on samples whose truth is known."""

import itertools
import math

import numpy as np
import pytest
import scipy

from htsr import fit_power_law
from htsr.tails.resampling import range_of_exponents


def pareto(alpha, n, seed):
    return (1 - np.random.default_rng(seed).random(n)) ** (-1 / (alpha - 1))


FIT = fit_power_law(pareto(2.5, 300, 0))


def test_seeds_are_kept():
    assert FIT.confidence_interval(n_boot=50, seed=1) == FIT.confidence_interval(n_boot=50, seed=1)
    assert FIT.confidence_interval(n_boot=50, seed=1) != FIT.confidence_interval(n_boot=50, seed=2)
    assert FIT.goodness_of_fit(50, seed=1) == fit_power_law(pareto(2.5, 300, 0)).goodness_of_fit(50, seed=1)


def test_the_interval_holds_the_estimate_and_grows_with_the_level():
    levels = [FIT.confidence_interval(level=level) for level in (0.01, 0.5, 0.9, 0.95, 0.99)]
    for narrow, wide in itertools.pairwise(levels):
        assert wide.low <= narrow.low <= FIT.alpha <= narrow.high <= wide.high
    assert levels[-1].low < levels[1].low < levels[1].high < levels[-1].high


def test_shorter_tails_count_where_xmin_was_chosen():
    """A given xmin leaves nothing to doubt but chance, so the interval is symmetric on its scale and narrower."""
    given = fit_power_law(FIT.values, xmin=FIT.xmin)
    low, high = given.confidence_interval()
    assert (low - 1) * (high - 1) == pytest.approx((FIT.alpha - 1) ** 2)
    assert high - low < FIT.confidence_interval().high - FIT.confidence_interval().low
    x = np.sort(pareto(3.0, 200, 0))
    lowest, highest = range_of_exponents(x, 3.0, shorter=True)
    assert range_of_exponents(x, 3.0, shorter=False) == (math.log(2.0), math.log(2.0))
    of_tails = [math.log(k / np.log(x[-k:] / x[-k]).sum()) for k in (int(200 / 2 ** (j / 4)) for j in range(1, 15))]
    assert (lowest, highest) == pytest.approx((min(of_tails), max([*of_tails, math.log(2.0)])))


def test_a_short_tail_says_that_its_interval_is_unreliable():
    assert fit_power_law(pareto(3.0, 60, 0)).interval_caution == "interval unreliable below 100 values"
    assert fit_power_law(pareto(3.0, 60, 0), xmin=1.0).interval_caution == ""
    assert FIT.interval_caution == ""
    assert fit_power_law([1.0, 2.0]).interval_caution == ""


def junction(n, share, seed):
    """A lognormal body that runs into a Pareto tail of alpha 2.3 with nearly the same slope: xmin is found too low."""
    rng = np.random.default_rng(seed)
    k = rng.binomial(n, share)
    edge = scipy.special.ndtri(1 - share)
    body = np.exp(scipy.special.ndtri(rng.random(n - k) * (1 - share)) - edge)
    return np.r_[body, (1 - rng.random(k)) ** (-1 / 1.3)]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_coverage_where_the_body_hides_xmin(share):
    inside = 0
    for seed in range(120):
        low, high = fit_power_law(junction(1000, share, seed)).confidence_interval(n_boot=60, seed=seed)
        inside += low <= 2.3 <= high
    assert 0.92 - 0.05 <= inside / 120 <= 0.98 + 0.02


@pytest.mark.slow
def test_goodness_of_fit_is_uniform_on_exact_tails():
    p = np.array([fit_power_law(pareto(2.5, 200, seed)).goodness_of_fit(100, seed) for seed in range(300)])
    for level in (0.1, 0.3, 0.5):
        assert abs(np.mean(p <= level) - level) < 2.5 * math.sqrt(level * (1 - level) / 300) + 0.01


@pytest.mark.parametrize("power", [0.5, 3.0])
def test_the_interval_does_not_depend_on_alpha(power):
    """x -> x^c turns alpha - 1 into (alpha - 1) / c; interval and p-value follow, so coverage is one for every alpha."""
    other = fit_power_law(FIT.values**power)
    assert other.n_tail == FIT.n_tail
    mine, theirs = FIT.confidence_interval(n_boot=100), other.confidence_interval(n_boot=100)
    assert (theirs.low - 1) * power == pytest.approx(mine.low - 1, rel=1e-6)
    assert (theirs.high - 1) * power == pytest.approx(mine.high - 1, rel=1e-6)
    assert other.goodness_of_fit(100) == FIT.goodness_of_fit(100)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 400])
def test_coverage(n):
    """Nominal 95 %: of 300 intervals between 93 and 97 % with room for 2.5 standard errors of the count."""
    inside = 0
    for seed in range(300):
        low, high = fit_power_law(pareto(3.0, n, seed)).confidence_interval(n_boot=100, seed=seed)
        inside += low <= 3.0 <= high
    assert 0.93 - 0.03 <= inside / 300 <= 0.97 + 0.025


def test_goodness_of_fit_accepts_pareto_and_rejects_noise():
    accepted = [fit_power_law(pareto(2.5, 150, seed)).goodness_of_fit(30, seed) > 0.1 for seed in range(15)]
    assert sum(accepted) >= 11
    W = np.random.default_rng(0).normal(size=(600, 300))
    assert fit_power_law(np.linalg.eigvalsh(W.T @ W)).goodness_of_fit(50) < 0.1


def test_intervals_stay_finite_where_resamples_jump():
    body = np.random.default_rng(0).uniform(0.1, 1, 370)
    fit = fit_power_law(np.r_[body, pareto(5.0, 14, 1)])
    low, high = fit.confidence_interval(n_boot=100)
    assert 1 < low < fit.alpha < high < 1 + 20 * (fit.alpha - 1)


def test_bias_corrected_alpha():
    """Over many samples with xmin at the smallest value the correction is exact to the noise of the mean."""
    n, plain, corrected = 20, [], []
    for seed in range(4000):
        x = np.sort(pareto(3.0, n, seed))
        a = n / np.log(x / x[0]).sum()
        plain.append(a)
        corrected.append(a * (n - 2) / n)
    assert np.mean(plain) == pytest.approx(2 * n / (n - 2), rel=0.01)
    assert np.mean(corrected) == pytest.approx(2, rel=0.01)
    assert FIT.alpha_bias_corrected == pytest.approx(1 + (FIT.alpha - 1) * (FIT.n_tail - 2) / FIT.n_tail)
    given = fit_power_law(FIT.values, xmin=1.5)
    assert given.alpha_bias_corrected == pytest.approx(1 + (given.alpha - 1) * (given.n_tail - 1) / given.n_tail)


def test_failed_fits_have_no_interval():
    failed = fit_power_law([1.0, 2.0])
    assert all(math.isnan(end) for end in failed.confidence_interval())
    assert all(math.isnan(end) for end in failed.xmin_interval())
    assert math.isnan(failed.goodness_of_fit())
    assert math.isnan(failed.alpha_bias_corrected)


def test_xmin_interval_holds_the_estimate():
    fit = fit_power_law(np.r_[np.random.default_rng(0).uniform(0.05, 1, 400), pareto(2.5, 400, 0)])
    low, high = fit.xmin_interval()
    assert low <= 1.1
    assert high >= fit.xmin * 0.9


@pytest.mark.parametrize("call", [lambda: FIT.confidence_interval(level=1.0), lambda: FIT.xmin_interval(level=0.0)])
def test_bad_levels(call):
    with pytest.raises(ValueError, match="level between 0 and 1"):
        call()


@pytest.mark.parametrize("call", [lambda: FIT.confidence_interval(n_boot=5), lambda: FIT.goodness_of_fit(0)])
def test_too_few_resamples(call):
    with pytest.raises(ValueError, match="expected n_boot to be a whole number >= 20, got n_boot="):
        call()


@pytest.mark.parametrize("options", [{"xmax": 15.0}, {"xmax": 3}])
def test_fits_that_leave_values_out_have_no_resamples(options):
    """Draws from the fitted law would hold the values that were left out: intervals from them cover a third of the time."""
    fit = fit_power_law(FIT.values, **options)
    for call in (fit.confidence_interval, fit.xmin_interval, fit.goodness_of_fit):
        with pytest.raises(ValueError, match="needs a fit to all values"):
            call()
    assert fit_power_law(FIT.values, xmax="max").goodness_of_fit(20) >= 0


def test_the_interval_of_a_given_xmin_is_that_xmin():
    assert fit_power_law(FIT.values, xmin=1.7).xmin_interval(n_boot=20) == (1.7, 1.7)


@pytest.mark.parametrize("arguments", [{"n_boot": 50.0}, {"seed": -1}, {"seed": None}, {"seed": 1.5}])
def test_resamples_and_seeds_are_whole_numbers(arguments):
    error = ValueError if arguments == {"seed": -1} else TypeError
    with pytest.raises(error, match="to be a whole number >= "):
        FIT.confidence_interval(**arguments)
