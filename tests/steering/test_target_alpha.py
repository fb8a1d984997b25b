"""The closed loop on the power, on its own and against a plant that answers."""

import numpy as np
import pytest

from htsr.steering import TargetAlpha


def test_alpha_above_the_target_raises_the_power():
    assert TargetAlpha(3.5, gain=0.1)([0.0, 0.1, 0.2], [4.5, 2.5, np.nan]) == pytest.approx([0.1, 0.0, 0.2])


def test_the_power_stays_within_its_bounds_and_leaves_them_at_once():
    loop = TargetAlpha(3, gain=1, low=-0.25, high=0.5)
    assert loop([0.4, 0.0], [9.0, 1.5]).tolist() == [0.5, -0.25]
    assert loop([0.5], [2.9]) == pytest.approx([0.4])


def test_the_target_within_the_interval_moves_nothing():
    loop = TargetAlpha(3, gain=1)
    assert loop([0.1, 0.1], [3.2, 3.2], low=[2.9, 3.1], high=[3.5, 3.5]) == pytest.approx([0.1, 0.3])


def test_one_power_by_the_median():
    loop = TargetAlpha(3, gain=0.1, per="model")
    assert loop([0.1] * 4, [2.0, 5.0, 4.0, np.nan]) == pytest.approx([0.2] * 4)
    assert loop([0.1], [np.nan]).tolist() == [0.1]


def test_the_loop_comes_to_its_target():
    loop, p, alpha = TargetAlpha(3.5, gain=0.05), np.array([0.0]), 5.0
    for _ in range(200):
        p = loop(p, [alpha])
        alpha += 0.2 * (5 - 6 * p[0] - alpha)  # alpha follows p slowly, and is 3.5 at p = 1/4
    assert p == pytest.approx([0.25], abs=1e-3)
    assert alpha == pytest.approx(3.5, abs=1e-2)


@pytest.mark.parametrize("settings", [{"gain": 0}, {"gain": -1}, {"low": 1}, {"per": "head"}, {"target": 1.0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        TargetAlpha(**{"target": 3.5, **settings})
