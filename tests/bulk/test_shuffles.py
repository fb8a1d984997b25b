"""Shuffles: traps planted and found, distances against WeightWatcher and closed forms."""

import numpy as np
import pytest
import torch

import htsr
from htsr.bulk import density_distance, rand_distance, shuffle
from htsr.compat.crosscheck import quiet_weightwatcher


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("side", [60, 99, 100, 200])
def test_one_planted_element_is_one_trap_and_is_named(side):
    """WeightWatcher counts five at 60 and 99, once for each replica."""
    W = noise(side, side)
    W[7, 11] = -2.5 * side**0.5
    found = shuffle(W)
    assert found.num_traps == 1
    assert found.elements == ((7, 11),)
    assert found.values == (W[7, 11],)
    assert found.mean_strength < 1


def test_a_mean_is_a_trap_and_is_named():
    found = shuffle(noise(200, 100) + 0.25)
    assert found.num_traps == 1
    assert found.elements == ()
    assert found.mean == pytest.approx(0.25, abs=0.03)
    assert found.mean_strength == pytest.approx(0.25 * (200 * 100) ** 0.25, rel=0.1)


def test_correlation_is_no_trap():
    u, v = noise(200, 1, seed=1), noise(1, 100, seed=2)
    W = noise(200, 100) + 0.5 * u @ v
    assert htsr.fit_marchenko_pastur(htsr.esd(W), 200, 100).num_spikes == 1
    assert shuffle(W).num_traps == 0


@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_noise_has_no_traps(draw):
    rng = np.random.default_rng(0)
    assert sum(shuffle(getattr(rng, draw)(size=(64, 64)), seed=i).num_traps for i in range(60)) <= 1


def test_element_of_a_convolution():
    W = noise(64, 32, 3, 3)
    W[5, 6, 1, 2] = 40
    found = shuffle(W)
    assert found.elements == ((5, 6, 1, 2),)
    assert found.num_traps == 1


def test_seeded():
    W = noise(50, 40)
    assert np.array_equal(shuffle(W, seed=3).spectra[0], shuffle(W, seed=3).spectra[0])
    assert not np.array_equal(shuffle(W, seed=3).spectra[0], shuffle(W, seed=4).spectra[0])


def test_the_weight_and_the_random_state_stay():
    W = noise(50, 40)
    before, state = W.clone(), torch.random.get_rng_state()
    shuffle(W)
    assert torch.equal(W, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rand_distance_is_weightwatchers():
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.pareto(2, size=100)), np.sort(rng.random(100))
    b *= a.sum() / b.sum()  # a shuffle keeps the sum
    with quiet_weightwatcher():
        from weightwatcher.RMT_Util import jensen_shannon_distance

        assert rand_distance(a, b) == pytest.approx(jensen_shannon_distance(a, b), rel=1e-12)


def test_density_distance():
    rng = np.random.default_rng(0)
    a = rng.random(400)
    assert density_distance(a, a) == 0
    assert density_distance(a, a + 2) == pytest.approx(1)
    assert density_distance(a, rng.random(400)) < 0.3
    assert density_distance(a**2, (a + 0.5) ** 2) == pytest.approx(density_distance(a, a + 0.5))  # whatever the scale


def test_heavier_tails_are_further_from_their_shuffles():
    rows = []
    for alpha in (6.0, 3.0, 2.0):
        scales = torch.from_numpy(np.random.default_rng(0).pareto(alpha - 1, size=100) + 1).sqrt()
        rows.append(htsr.analyze({"w": noise(200, 100) * scales}, randomize=True)["w"].row["density_distance"])
    assert rows == sorted(rows)
