"""The pruned scan returns the same bits as the plain scan, on any values."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htsr.tails.xmin_scan import KS, candidates, scan_all, scan_best

DISTANCES = [KS(), KS(two_sided=True), KS(truncated=True), KS(two_sided=True, truncated=True)]


def plain(x, ks):
    starts, alphas, distances = scan_all(x, ks=ks)
    best = np.argmin(distances)
    return starts[best], alphas[best], distances[best]


def samples():
    rng = np.random.default_rng(0)
    for n in (2, 3, 8, 100, 700):
        W = rng.normal(size=(2 * n, n))
        yield f"noise-{n}", np.linalg.eigvalsh(W.T @ W)
        yield f"pareto-{n}", np.sort(rng.pareto(1.5, n) + 1)
        yield f"uniform-{n}", np.sort(rng.uniform(0.1, 1, n))
        yield f"lognormal-{n}", np.sort(rng.lognormal(sigma=3, size=n))
    yield "few distinct values", np.sort(rng.integers(1, 20, size=500)).astype(float)
    yield "far apart", np.sort(np.r_[1e-300, 1e300, rng.random(50)])
    yield "denormal", np.array([5e-324, 1e-310, 1.0, 2, 3, 4, 5, 6, 7, 8])
    yield "huge and close", 1e300 * np.sort(1 + 1e-9 * rng.random(300))
    yield "tiny", 1e-300 * np.sort(rng.pareto(2, 200) + 1)
    yield "geometric", np.geomspace(1e-300, 1e300, 60)


SAMPLES = dict(samples())


@pytest.mark.parametrize("ks", DISTANCES)
@pytest.mark.parametrize("name", SAMPLES)
def test_same_bits_as_the_plain_scan(name, ks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scan_best(SAMPLES[name], ks=ks)[:3] == plain(SAMPLES[name], ks)


@settings(max_examples=200, deadline=None)
@given(
    # values whose logarithms are equal count as one
    st.lists(st.floats(min_value=1e-300, max_value=1e300), min_size=2, max_size=60).filter(
        lambda values: len(set(np.log(values))) > 1
    ),
    st.sampled_from(DISTANCES),
)
def test_same_bits_on_anything(values, ks):
    x = np.sort(np.array(values))
    assert scan_best(x, ks=ks)[:3] == plain(x, ks)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(min_value=-200, max_value=200))
def test_alpha_does_not_depend_on_the_scale(seed, exponent):
    x = np.sort(np.random.default_rng(seed).pareto(1.5, 80) + 1)
    scaled = np.sort(x * 2.0 ** round(exponent))  # exact, so that ties stay ties
    assert scan_best(scaled).alpha == pytest.approx(scan_best(x).alpha, rel=1e-9)


def test_a_restricted_scan_is_the_best_of_its_candidates():
    x = SAMPLES["pareto-700"]
    starts = candidates(x)[200:400]
    _, alphas, distances = scan_all(x, starts)
    best = np.argmin(distances)
    assert scan_best(x, starts)[:3] == (starts[best], alphas[best], distances[best])
    assert scan_best(x, starts[:0]) is None


def test_two_sided_distance_is_that_of_scipy():
    from scipy import stats

    x = SAMPLES["pareto-100"]
    found = scan_best(x, ks=KS(two_sided=True))
    tail = x[found.start :]
    expected = stats.kstest(tail, lambda v: 1 - (v / tail[0]) ** (1 - found.alpha)).statistic
    assert found.D == pytest.approx(expected, rel=1e-12)


def test_a_hundred_thousand_values():
    x = np.sort(np.random.default_rng(0).pareto(2.0, 100_000) + 1)
    assert scan_best(x).alpha == pytest.approx(3, abs=0.05)
