import math

import numpy as np
import pytest
from scipy.stats import linregress, t

from htsr.dynamics.width_exponent import FLAT, fit_width_exponent


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0])
def test_an_exact_power_law_has_its_exponent_and_no_error(exponent):
    widths = [64, 128, 256] * 2
    levels = [1.0] * 3 + [7.0] * 3  # of two groups
    values = [level * width**exponent for level, width in zip(levels, widths, strict=True)]
    fit = fit_width_exponent(widths, values, [0] * 3 + [1] * 3)
    assert fit.exponent == pytest.approx(exponent, abs=1e-12)
    assert fit.error == pytest.approx(0, abs=1e-12)
    assert fit.verdict == {-0.5: "vanishes as width^-0.5", 0.0: "flat", 1.0: "grows as width^1.0"}[exponent]


def test_one_group_is_an_ordinary_regression():
    draw = np.random.default_rng(0)
    widths = np.array([16, 32, 64, 128, 256])
    values = widths**0.5 * np.exp(0.3 * draw.standard_normal(5))
    fit, truth = fit_width_exponent(widths, values), linregress(np.log(widths), np.log(values))
    margin = t.ppf(0.975, 3) * truth.stderr
    assert (fit.exponent, fit.error) == pytest.approx((truth.slope, truth.stderr))
    assert (fit.low, fit.high) == pytest.approx((truth.slope - margin, truth.slope + margin))


def test_the_interval_holds_the_exponent_in_95_percent_of_trials():
    """Groups take their own levels out of the error, and a degree of freedom each."""
    draw = np.random.default_rng(0)
    widths, groups = np.tile([64, 128, 256], 3), np.repeat([0, 1, 2], 3)
    inside = 0
    for _ in range(500):
        noise = 0.2 * draw.standard_normal(9) + draw.standard_normal(3)[groups]
        fit = fit_width_exponent(widths, widths**0.5 * np.exp(noise), groups)
        inside += fit.low < 0.5 < fit.high
    assert 0.92 < inside / 500 < 0.98


def test_what_noise_hides_is_not_called_flat():
    fit = fit_width_exponent([64, 128, 256], [1.0, 3.0, 1.0])
    assert fit.verdict == "not told apart from flat"
    assert fit.high > FLAT


@pytest.mark.parametrize(("widths", "groups"), [([64, 128], None), ([64, 64], None), ([64, 128, 64], [0, 0, 1])])
def test_too_few_values_have_no_error(widths, groups):
    fit = fit_width_exponent(widths, [1.0, 2.0, 3.0][: len(widths)], groups)
    assert math.isnan(fit.error)
    assert fit.verdict == ("" if len(set(widths)) == 1 else "not told apart from flat")
    assert math.isnan(fit.exponent) == (len(set(widths)) == 1)
