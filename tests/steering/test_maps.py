"""Maps, means and arms as pure functions."""

import numpy as np
import pandas as pd
import pytest

from htsr.steering import Linear, Sigmoid, Step, drawn_order, in_arm, largest_remainders, with_mean_one
from htsr.steering.arms import restricted
from htsr.steering.signals import held_signal

SIGNAL = np.array([3.0, 2.0, 7.0, 4.5])


@pytest.mark.parametrize("chosen", [Linear(), Sigmoid(), Step()])
def test_equal_signals_steer_nothing(chosen):
    assert chosen([3.1, 3.1, 3.1]).tolist() == [1.0, 1.0, 1.0]
    assert chosen([]).tolist() == []
    assert np.argsort(chosen(SIGNAL)).tolist() == np.argsort(SIGNAL).tolist()


def test_step_is_the_published_one_and_shares_ties():
    assert Step(0.5, 1.5)(SIGNAL) == pytest.approx([0.75, 0.5, 1.25, 1.0])
    assert Step(0.5, 1.5)([1.0, 2.0, 2.0, 3.0]) == pytest.approx([0.5, 0.875, 0.875, 1.25])


def test_a_sigmoid_does_not_overflow():
    assert Sigmoid(2, 1e6)([1.0, 2.0]) == pytest.approx([0.1, 10])


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_the_mean_is_held(mean):
    values = with_mean_one(np.random.default_rng(0).lognormal(size=(1000)), mean)
    assert (values.mean() if mean == "arithmetic" else np.exp(np.log(values).mean())) == pytest.approx(1, abs=1e-12)
    assert with_mean_one(SIGNAL, None).tolist() == SIGNAL.tolist()
    with pytest.raises(ValueError, match="positive multipliers"):
        with_mean_one([0.0, 0.0], mean)


@pytest.mark.parametrize("make", [lambda: Linear(-1, 1), lambda: Step(0, np.inf), lambda: Sigmoid(slope=np.nan)])
def test_bad_maps_are_refused(make):
    with pytest.raises(ValueError, match="finite"):
        make()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_drawn_order_is_a_permutation_that_moves_something(count):
    orders = [drawn_order(count, seed) for seed in range(20)]
    assert all(sorted(order) == list(range(count)) != order for order in orders)
    assert drawn_order(count, 3) == orders[3]
    assert in_arm(SIGNAL, "shuffled", [1, 0, 3, 2]).tolist() == [2.0, 3.0, 4.5, 7.0]


def test_an_order_among_some_layers_is_a_permutation_of_these():
    for seed in range(20):
        order = drawn_order(7, seed)
        assert sorted(restricted(order, [0, 2, 3, 6])) == [0, 1, 2, 3]
        assert restricted(order, range(7)) == order


def test_inverting_twice_changes_nothing():
    assert in_arm(SIGNAL, "inverted").tolist() == [4.5, 7.0, 2.0, 3.0]
    assert in_arm(in_arm(SIGNAL, "inverted"), "inverted").tolist() == SIGNAL.tolist()


def test_a_signal_is_held_within_its_interval():
    held = np.array([2.0, 2.0, np.nan, 2.0, 2.0])
    value = np.array([2.4, 3.0, 2.5, np.nan, 1.0])
    reading = pd.DataFrame({"value": value, "low": value - 0.5, "high": value + 2})
    assert held_signal(held, reading, 1.0) == pytest.approx([2.0, 3.0, 2.5, np.nan, 2.0], nan_ok=True)
    assert held_signal(held, reading, 0.0) == pytest.approx(value, nan_ok=True)
    assert held_signal(held, reading, 0.4) == pytest.approx([2.4, 3.0, 2.5, np.nan, 1.0], nan_ok=True)


def test_largest_remainders_are_hamiltons():
    # Hamilton's method on the standard example: quotas 4.7, 1.6, 1.55, 1.3, 0.85
    assert largest_remainders([47, 16, 15.5, 13, 8.5], 10).tolist() == [5, 2, 1, 1, 1]
    generator = np.random.default_rng(0)
    for least in (0, 1, 2):
        shares = generator.lognormal(sigma=2, size=9)
        parts = largest_remainders(shares, 40, least=least)
        assert parts.sum() == 40
        assert parts.min() >= least
        if least == 0:
            assert (np.abs(parts - 40 * shares / shares.sum()) < 1).all()
    with pytest.raises(ValueError, match="at least 5"):
        largest_remainders([1, 1], 9, least=5)
