"""The fit against WeightWatcher, powerlaw and known exponents."""

import math
import warnings

import numpy as np
import powerlaw
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htsr import InputError, fit_power_law
from htsr.compat.crosscheck import quiet_weightwatcher
from htsr.tails.xmin_scan import candidates, scan_all


def spectra():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        W = rng.normal(size=(300, 120))
        yield f"gaussian-{seed}", np.linalg.eigvalsh(W.T @ W)
        yield f"pareto1.7-{seed}", rng.pareto(0.7, size=150) + 1
        yield f"pareto4-{seed}", rng.pareto(3.0, size=300) + 1
        yield f"lognormal-{seed}", rng.lognormal(size=200)
        yield f"exponential-{seed}", rng.exponential(size=25)
        yield f"inverse-wishart-{seed}", 1 / np.linalg.eigvalsh(W[:120].T @ W[:120])


SPECTRA = dict(spectra())


@pytest.mark.parametrize("name", SPECTRA)
def test_bits_agree_with_weightwatcher(name):
    x = SPECTRA[name]
    fit = fit_power_law(x)
    with quiet_weightwatcher():
        from weightwatcher.WW_powerlaw import WWFit

        theirs = WWFit(x)
    assert (fit.alpha, fit.D, fit.xmin, fit.sigma) == (theirs.alpha, theirs.D, theirs.xmin, theirs.sigma)
    assert fit.n_tail == len(theirs.data)


@pytest.mark.parametrize("name", list(SPECTRA)[:6])
def test_agrees_with_powerlaw(name):
    x = SPECTRA[name]
    theirs = powerlaw.Fit(x, parameter_ranges={"alpha": (1, None)}, verbose=0).power_law
    fit = fit_power_law(x)
    assert fit.alpha == pytest.approx(theirs.alpha, rel=1e-6)
    assert fit.xmin == theirs.xmin


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5, 4.0, 6.0])
def test_recovers_exact_pareto(alpha):
    estimates = [fit_power_law(np.random.default_rng(s).pareto(alpha - 1, size=1000) + 1).alpha for s in range(20)]
    standard_error = (alpha - 1) / math.sqrt(1000)
    assert np.mean(estimates) == pytest.approx(alpha, abs=1.5 * standard_error)


def test_square_inverse_wishart_has_alpha_three_halves():
    W = np.random.default_rng(0).normal(size=(400, 400))
    assert fit_power_law(1 / np.linalg.eigvalsh(W.T @ W)).alpha == pytest.approx(1.5, abs=0.05)


def test_given_xmin_is_taken_as_given():
    x = np.random.default_rng(0).pareto(1.5, size=500) + 1
    fit = fit_power_law(x, xmin=1.5)
    tail = x[x >= 1.5]
    assert fit.xmin == 1.5
    assert fit.n_tail == len(tail)
    assert fit.alpha == pytest.approx(1 + len(tail) / np.log(tail / 1.5).sum(), rel=1e-12)


def test_log_likelihood_is_the_sum_of_log_densities():
    x = np.random.default_rng(0).pareto(1.5, size=100) + 1
    fit = fit_power_law(x)
    tail = x[x >= fit.xmin]
    density = (fit.alpha - 1) / fit.xmin * (tail / fit.xmin) ** -fit.alpha
    assert fit.log_likelihood == pytest.approx(np.log(density).sum(), rel=1e-10)


def test_duplicates_start_one_tail():
    x = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0])
    assert list(candidates(x)) == [0, 3, 5]
    starts, alphas, _ = scan_all(x)
    assert alphas[1] == pytest.approx(1 + 5 / np.log(x[3:] / 2).sum())
    assert list(starts) == [0, 3, 5]


def test_order_and_zeros_do_not_matter():
    x = np.random.default_rng(0).pareto(1.5, size=100) + 1
    assert fit_power_law(np.concatenate([x, np.zeros(5)])[::-1]) == fit_power_law(x)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "0 distinct"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "7 distinct"),
        (np.ones(50), "1 distinct"),
        (1 + 1e-7 * np.arange(50), "equal to within 1e-05"),
        (np.zeros(50), "0 distinct"),
    ],
)
def test_refuses_what_carries_no_tail(values, reason):
    fit = fit_power_law(values)
    assert fit.status == "failed"
    assert reason in fit.reason
    assert math.isnan(fit.alpha)
    assert math.isnan(fit.D)
    assert "failed" in repr(fit)


@pytest.mark.parametrize(("xmin", "left"), [(100, 0), (19, 1), (18.5, 1)])
def test_refuses_a_given_xmin_that_leaves_less_than_two_values(xmin, left):
    fit = fit_power_law(np.arange(1.0, 20.0), xmin=xmin)
    assert fit.status == "failed"
    assert f"{left} of 19" in fit.reason


def test_tensors_of_any_type_are_taken():
    x = np.random.default_rng(0).pareto(1.5, size=100) + 1
    assert fit_power_law(torch.tensor(x, requires_grad=True)) == fit_power_law(x)
    assert fit_power_law(torch.tensor(x).bfloat16()).status == "success"


def test_values_are_kept_as_they_were():
    fit = fit_power_law(np.random.default_rng(0).pareto(1.5, size=100) + 1)
    with pytest.raises(ValueError, match="read-only"):
        fit.values[0] = 1


def test_a_failed_fit_has_no_scan():
    with pytest.raises(ValueError, match="no scan to show: 1 distinct"):
        fit_power_law(np.ones(20)).scan()


@pytest.mark.parametrize("values", [[1, -1], [1, np.nan], [1, np.inf], [1j, 2]])
def test_values_that_are_no_spectrum(values):
    with pytest.raises(InputError, match="expected"):
        fit_power_law(values)


@pytest.mark.parametrize("xmin", ["best", "", 0.0, -1, float("nan"), 10**400])
def test_unknown_rules_for_xmin(xmin):
    with pytest.raises(ValueError, match="expected xmin to be a positive number or one of ks, median"):
        fit_power_law([1, 2], xmin=xmin)


@pytest.mark.parametrize("xmin", [True, None, [1.0], 2j])
def test_xmin_of_another_type(xmin):
    with pytest.raises(TypeError, match="expected xmin to be a positive number or one of ks, median"):
        fit_power_law([1, 2], xmin=xmin)


EXTREME = {
    "denormals": np.r_[5e-324, 1e-310, 1e-300, np.geomspace(1, 100, 30)],
    "1e-300 and 1e300": np.geomspace(1e-300, 1e300, 50),
    "integers": np.random.default_rng(0).integers(1, 1000, size=300),
    "float32": (np.random.default_rng(0).pareto(1.5, size=300) + 1).astype(np.float32),
    "100000 values": np.random.default_rng(0).pareto(1.5, size=100_000) + 1,
    "two distinct values": np.r_[np.ones(50), np.full(50, 2.0)],
}


@pytest.mark.parametrize("name", EXTREME)
def test_nothing_overflows_warns_or_hangs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_power_law(EXTREME[name])
        if fit.status == "success":
            assert math.isfinite(fit.alpha)
            assert fit.alpha > 1
            assert 0 < fit.D < 1
            assert math.isfinite(fit.log_likelihood)
            if fit.n < 1000:
                low, high = fit.confidence_interval(n_boot=20)
                assert low <= fit.alpha <= high
                assert 0 <= fit.goodness_of_fit(20) <= 1
    assert (fit.status == "failed") == (name == "two distinct values")


@settings(max_examples=50, deadline=None)
@given(st.permutations(list(range(30))), st.integers(0, 100))
def test_order_does_not_matter(order, seed):
    x = np.random.default_rng(seed).pareto(1.5, size=30) + 1
    assert fit_power_law(x[order]) == fit_power_law(x)
