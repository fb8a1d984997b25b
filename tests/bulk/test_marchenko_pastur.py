"""The law against direct integration, and its finite-size terms against simulation."""

import numpy as np
import pytest
from scipy import integrate

from htsr.bulk.marchenko_pastur import cdf, edges, lower_mean

SHAPES = [(300, 300), (301, 300), (400, 200), (1000, 100)]


def density(x, N, M):
    low, high = edges(N, M)
    return np.sqrt((high - x) * (x - low)) / (2 * np.pi * M * x)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("where", [0.02, 0.3, 0.8])
def test_distribution_function(N, M, where):
    """Scaled up a millionfold the terms of order 1 / M vanish and the plain law is left."""
    low, high = edges(N, M)
    x = low + where * (high - low)
    above, _ = integrate.quad(density, x, high, args=(N, M))
    assert 1 - cdf(np.array([x * 1e6]), N * 1e6, M * 1e6)[0] == pytest.approx(above, abs=1e-7)


@pytest.mark.parametrize(("N", "M"), SHAPES)
def test_mean_of_the_lower_part(N, M):
    low, high = edges(N, M)
    x = low + 0.3 * (high - low)
    above, _ = integrate.quad(density, x, high, args=(N, M))
    weighted, _ = integrate.quad(lambda v: v * density(v, N, M), x, high)
    assert lower_mean(1 - above, N * 1e6, M * 1e6) / 1e6 == pytest.approx((N - weighted) / (1 - above), rel=1e-6)


def test_outside_of_the_bulk():
    low, high = edges(40, 10)
    assert cdf(np.array([0.0, low, high, 2 * high]), 40, 10) == pytest.approx([0, 0, 1, 1])


@pytest.mark.parametrize(("draw", "kurtosis"), [("normal", 0.0), ("laplace", 3.0), ("uniform", -1.2)])
def test_terms_of_order_one_over_M(draw, kurtosis):
    """Counts and means of 2000 small matrices; the terms are up to 0.016 of a share here."""
    N, M, draws = 48, 32, 2000
    rng = np.random.default_rng(0)
    W = getattr(rng, draw)(size=(draws, N, M))
    W = (W - (0.5 if draw == "uniform" else 0)) / {"normal": 1, "laplace": 2**0.5, "uniform": 12**-0.5}[draw]
    evals = np.linalg.eigvalsh(W.transpose(0, 2, 1) @ W)
    x = np.quantile(evals, [0.3, 0.5, 0.7])
    assert cdf(x, N, M, kurtosis) == pytest.approx([0.3, 0.5, 0.7], abs=0.003)
    seen, expected = evals[:, : M // 2].mean(), lower_mean(0.5, N, M, kurtosis)
    normal = lower_mean(0.5, N, M)
    assert expected == pytest.approx(
        seen, abs=max(0.06, 0.25 * abs(expected - normal))
    )  # terms of order 1 / M^2 are left
