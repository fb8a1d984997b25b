import math

import numpy as np
import pytest
import scipy

from htsr.bulk.roots import brent


@pytest.mark.parametrize(
    "function",
    [
        lambda x: math.cos(x) - x,
        lambda x: x**9 - 1e-4,  # flat around its root: bisection
        lambda x: math.exp(30 * x) - 5,
        lambda x: math.copysign(1.0, x - 1 / 3),  # a jump
        lambda x: x - 0.5,  # met exactly
        lambda x: x - 2,  # at an end
    ],
)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-9, 1e-15])
def test_a_root_is_scipys_to_the_last_bit(function, tolerance):
    for low in -np.random.default_rng(0).uniform(0.1, 1, 20):
        expected = scipy.optimize.brentq(function, low, 2.0, xtol=tolerance)
        assert brent(function, low, 2.0, tolerance) == expected
        assert brent(function, 2.0, low, tolerance) == scipy.optimize.brentq(function, 2.0, low, xtol=tolerance)
