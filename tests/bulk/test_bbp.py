"""The transition against matrices with a planted signal."""

import numpy as np
import pytest

from htsr.bulk.bbp import bbp_threshold, spike_eigenvalue, spike_strength
from htsr.bulk.marchenko_pastur import edges


@pytest.mark.parametrize(("N", "M"), [(900, 900), (1200, 600), (600, 1200)])
@pytest.mark.parametrize("times", [1.5, 3.0])
def test_where_a_signal_shows(N, M, times):
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=N), rng.normal(size=M)
    strength = times * bbp_threshold(N, M)
    W = rng.normal(size=(N, M)) + strength * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    top = np.linalg.norm(W, 2) ** 2
    assert spike_eigenvalue(strength, N, M) == pytest.approx(top, rel=0.05)
    assert spike_strength(top, N, M) == pytest.approx(strength, rel=0.06)


def test_there_and_back():
    strengths = bbp_threshold(70, 50) * np.array([1.0, 1.2, 4.0, 100.0])
    assert spike_strength(spike_eigenvalue(strengths, 70, 50), 70, 50) == pytest.approx(strengths)


def test_a_weak_signal_stays_at_the_edge():
    assert spike_eigenvalue(0.1, 70, 50) == pytest.approx(edges(70, 50)[1])
    assert spike_strength(1.0, 70, 50) == pytest.approx(bbp_threshold(70, 50))
