"""The tables keep what they promise, in exact arithmetic."""

import numpy as np
import pytest

from htsr.optim.quintics import (
    TABLES,
    count_weights,
    domain_start,
    iterates,
    largest_error,
    power_weights,
    trace_features,
)

POWERS = [i / 20 for i in range(21)]
# What the comment above the tables says, for p in [0, 1].
LARGEST_ERRORS = {5: 0.0037, 6: 0.0043, 7: 0.0044, 8: 0.0050, 9: 0.0056}


@pytest.mark.parametrize("steps", TABLES)
def test_errors_over_the_whole_domain(steps):
    x = np.geomspace(TABLES[steps].low, 1, 7919)  # not the grid of the fit
    for power in POWERS:
        error = np.abs(iterates(x, steps) @ power_weights(power, steps) / x**power - 1).max()
        assert error < LARGEST_ERRORS[steps]
        assert error == pytest.approx(largest_error(power, steps), rel=0.02, abs=1e-9)


@pytest.mark.parametrize(("steps", "low"), [(5, 1e-2), (6, 3e-3), (7, 1e-3), (8, 3e-4), (9, 1e-4)])
def test_domains(steps, low):
    assert domain_start(0.5, steps) == low
    assert domain_start(-0.1, steps) == 3 * low


@pytest.mark.parametrize("steps", TABLES)
def test_iterates_are_newton_schulz_steps(steps):
    a, b, c = TABLES[steps].coefficients[0]
    np.testing.assert_allclose(iterates(np.array([0.5]), steps)[0, 1], 0.5 * a + 0.125 * b + 0.03125 * c)


@pytest.mark.parametrize("steps", TABLES)
def test_below_the_domain_the_sum_falls_to_zero(steps):
    x = np.geomspace(1e-9, TABLES[steps].low / 30, 100)
    for power in (0.0, 0.125, 0.5):
        ratio = iterates(x, steps) @ power_weights(power, steps) / x
        assert ratio.std() < 0.02 * ratio.mean()


def test_power_one_is_the_first_iterate_alone():
    np.testing.assert_allclose(power_weights(1.0, 6), [1, 0, 0, 0, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize("steps", TABLES)
def test_count_weights_count_values_in_the_domain(steps):
    low = TABLES[steps].low
    counts = trace_features(np.geomspace(low, 1, 5000), steps) @ count_weights(steps)
    assert np.abs(counts - 1).max() < 0.001
    assert (trace_features(np.geomspace(low / 1e4, low / 3, 50), steps) @ count_weights(steps) < 0.4).all()


def test_values_a_little_above_one_do_no_harm():
    """Rounding in bfloat16 can leave the largest singular value half a percent above 1."""
    for steps in TABLES:
        assert np.abs(iterates(np.linspace(1, 1.01, 50), steps) @ power_weights(0.125, steps) - 1).max() < 0.02
