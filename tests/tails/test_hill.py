"""Hill's estimator and the two "median" forms."""

import numpy as np
import pytest

from htsr import fit_power_law
from htsr.tails import hill

X = np.random.default_rng(0).pareto(1.5, size=501) + 1


def test_closed_form():
    assert hill([1.0, 2.0, 4.0, 8.0], k=2) == pytest.approx(1 + 2 / (np.log(2) + np.log(4)))


def test_paper_form_is_hill_with_half_of_the_values():
    fit = fit_power_law(X, xmin="median-paper")
    assert fit.alpha == pytest.approx(hill(X), rel=1e-12)
    assert fit.n_tail == 250


def test_code_form_is_larger_by_k_plus_one_over_k():
    fit = fit_power_law(X, xmin="median")
    k = fit.n_tail - 1
    assert fit.alpha - 1 == pytest.approx((hill(X, k=k) - 1) * (k + 1) / k, rel=1e-12)
    x = np.sort(X)
    i = len(x) // 2
    published = 1 + (len(x) - i) / (np.log(x[i:]).sum() - (len(x) - i) * np.log(x[i]))
    assert fit.alpha == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize(("Q", "expected"), [(1, 2.12), (2, 2.71), (4, 3.46)])
def test_on_noise_it_measures_the_aspect_ratio(Q, expected):
    W = np.random.default_rng(0).normal(size=(Q * 400, 400))
    assert hill(np.linalg.eigvalsh(W.T @ W)) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    ("values", "k"),
    [([1.0, 2.0], 2), ([1.0, 2.0], 0), ([1.0, 2.0, 2.0, 2.0], 2), ([], None), ([np.nan, 1, 2], 1), ([-1, 1, 2], 1)],
)
def test_refusals(values, k):
    with pytest.raises(ValueError, match=r"expected 1 <= k|are equal|finite values >= 0"):
        hill(values, k=k)
