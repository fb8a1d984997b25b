"""Ways to choose a tail beside the plain KS scan: xmax, peak, fingers."""

import numpy as np
import pytest

from htsr import fit_power_law
from htsr.tails.xmin_scan import KS, scan_all

X = np.sort(np.random.default_rng(1).pareto(1.5, size=400) + 1)


def test_xmax_max_renormalises_the_distance_only():
    fit = fit_power_law(X, xmax="max")
    starts, alphas, distances = scan_all(X, ks=KS(truncated=True))
    best = np.argmin(distances)
    assert (fit.xmin, fit.alpha, fit.D) == (X[starts[best]], alphas[best], distances[best])
    tail = X[X >= fit.xmin]
    assert fit.alpha == pytest.approx(1 + len(tail) / np.log(tail / fit.xmin).sum(), rel=1e-12)
    F = 1 - (tail / fit.xmin) ** (1 - fit.alpha)
    assert fit.D == pytest.approx(np.abs(F / F[-1] - np.arange(len(tail)) / len(tail)).max(), rel=1e-12)


def test_xmax_as_a_number_and_as_a_count():
    assert fit_power_law(X, xmax=8.0) == fit_power_law(X[X <= 8], xmax="max")
    assert fit_power_law(X, xmax=7) == fit_power_law(X[:-7])
    assert fit_power_law(X, xmax=0) == fit_power_law(X)
    assert fit_power_law(X, xmax=1000).status == "failed"


@pytest.mark.parametrize(
    ("xmax", "error"),
    [
        ("min", ValueError),
        (-1.0, ValueError),
        (-2, ValueError),
        (float("nan"), ValueError),
        (True, TypeError),
        ([3], TypeError),
    ],
)
def test_bad_xmax(xmax, error):
    with pytest.raises(error, match="expected xmax"):
        fit_power_law(X, xmax=xmax)


@pytest.mark.parametrize(("rule", "published"), [("peak", False), ("peak-as-published", True)])
def test_peak_looks_around_the_peak(rule, published):
    body = np.random.default_rng(2).lognormal(mean=3, sigma=0.5, size=400)
    fit = fit_power_law(body, xmin=rule)
    counts, edges = np.histogram(np.log10(np.sort(body)), bins=100)
    peak = 10 ** edges[counts.argmax()]
    low = np.log10(0.95 * peak) if published else 0.95 * peak
    x = np.sort(body)
    starts, alphas, distances = scan_all(x)
    inside = (x[starts] >= low) & (x[starts] <= 1.5 * peak)
    best = np.argmin(np.where(inside, distances, np.inf))
    assert (fit.xmin, fit.alpha) == (x[starts[best]], alphas[best])


@pytest.mark.parametrize(("seed", "expected"), [(31, 1), (0, 0)])
def test_fingers(seed, expected):
    """Pareto samples of 40 with alpha = 3; in one of them the largest value makes the fit jump to 5.6."""
    x = np.sort(np.random.default_rng(seed).pareto(2.0, size=40) + 1)
    plain, clipped = fit_power_law(x), fit_power_law(x, clip_fingers=True)
    assert clipped.num_fingers == expected
    assert clipped.alpha == fit_power_law(x, xmax=expected).alpha
    assert (clipped.alpha < plain.alpha - 1) == (expected > 0)


def test_a_tail_of_two_values_is_at_the_edge():
    """Values that crowd ever closer below the largest: nothing but the last two looks like a power law at all."""
    fit = fit_power_law(1 - 10.0 ** -np.arange(1, 11))
    assert fit.status == "failed"
    assert fit.reason == "xmin at the edge: the best tail is the 2 largest of 10 values (D 0.365)"


def test_a_short_tail_says_so():
    fit = fit_power_law(np.geomspace(1, 2, 9))
    assert fit.status == "success"
    assert fit.reason == "rests on 9 values"


def test_every_candidate_is_there_for_the_picture():
    fit = fit_power_law(X)
    xmins, alphas, distances = fit.scan()
    assert distances.min() == fit.D
    assert xmins[distances.argmin()] == fit.xmin
    assert len(xmins) == len(alphas) == 399
