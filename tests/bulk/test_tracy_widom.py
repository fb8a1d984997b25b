"""The quantiles against the tabulated law and against simulation."""

import numpy as np
import pytest

from htsr.bulk import tracy_widom_edge
from htsr.bulk.tracy_widom import edge_score, share_above


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 0.9793), (0.99, 2.0234)])
def test_tabulated_quantiles(level, quantile):
    """Bejan (2005), Table 1; the gamma approximation is good to 0.02 there."""
    N, M = 10_000, 5_000
    centre = (np.sqrt(N - 1) + np.sqrt(M)) ** 2
    width = (np.sqrt(N - 1) + np.sqrt(M)) * (1 / np.sqrt(N - 1) + 1 / np.sqrt(M)) ** (1 / 3)
    assert (tracy_widom_edge(N, M, level=level) - centre) / width == pytest.approx(quantile, abs=0.02)


def test_share_of_noise_matrices_above_the_edge():
    rng = np.random.default_rng(0)
    edge = tracy_widom_edge(80, 40, level=0.9)
    above = np.mean([np.linalg.norm(rng.normal(size=(80, 40)), 2) ** 2 > edge for _ in range(1000)])
    assert above == pytest.approx(0.1, abs=0.03)


def test_more_matrices_reach_further():
    assert tracy_widom_edge(80, 40, matrices=9) > tracy_widom_edge(80, 40)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.99])
def test_shares_invert_quantiles(level):
    score, edge = edge_score(tracy_widom_edge(400, 200, level=level), 400, 200)
    assert share_above(score) == pytest.approx(1 - level)
    assert edge_score(0.0, 400, 200)[0] == pytest.approx(-edge)
