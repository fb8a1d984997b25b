"""Quintic polynomials whose weighted iterates approximate x^p for every p at once, and the fit of the weights.

From x_0 = x the iterates are x_{k+1} = a_k x_k + b_k x_k^3 + c_k x_k^5, which applied to a matrix are Newton-Schulz steps:
three matrix products each. Each iterate rises to about 1 a factor of three earlier than the one before it, so that
sum_k w_k x_k follows any x^p from where the last one arrives up to 1. Only the weights depend on p. (The sum of iterates
is Soft-Muon's, Y. Pande 2026, who gives weights for p = 0.1 and (2, -1.5, 0.5) in every step.)
"""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Quintics(NamedTuple):
    """Coefficients of Newton-Schulz steps, and the domain on which their weighted iterates follow x^p.

    Attributes:
        low: Lower end of the domain [low, 1]; below it the sum falls linearly to zero.
        coefficients: (a, b, c) of each step.
    """

    low: float
    coefficients: tuple[tuple[float, float, float], ...]


# Found by minimising the largest relative error over p in [0, 1) on a logarithmic grid of [low, 1], coefficients and
# weights together (L-BFGS on a soft maximum, from many starts). Largest error over p = 0, 0.05, ..., 1, remeasured by
# tests/optim/test_quintics.py: 0.36, 0.42, 0.43, 0.49 and 0.55 %. For p = 1/8 alone, 5 steps reach 0.23 % on their domain;
# these tables serve every p.
TABLES = {
    5: Quintics(
        0.01,
        (
            (2.966933, -4.477694, 2.052132),
            (3.126751, -5.094613, 2.454684),
            (2.979912, -4.604832, 2.135274),
            (3.533608, -4.935933, 2.268245),
            (3.021833, -5.243518, 1.394235),
        ),
    ),
    6: Quintics(
        0.003,
        (
            (3.104639, -4.775197, 2.219388),
            (3.012615, -4.650227, 2.117525),
            (3.144061, -5.106560, 2.460503),
            (2.934163, -4.589398, 2.144677),
            (3.160114, -4.784737, 2.367543),
            (3.685947, -4.639475, 1.696389),
        ),
    ),
    7: Quintics(
        0.001,
        (
            (3.130587, -4.871541, 2.266653),
            (3.072689, -4.762241, 2.173240),
            (3.008961, -4.530438, 2.072680),
            (2.968855, -4.840045, 2.327863),
            (2.952741, -4.748513, 2.332716),
            (3.097690, -4.824701, 2.452268),
            (3.529452, -4.215930, 1.654006),
        ),
    ),
    8: Quintics(
        0.0003,
        (
            (3.096329, -4.769994, 2.240524),
            (3.082913, -4.795479, 2.211122),
            (3.086862, -4.788779, 2.219824),
            (3.087179, -4.788784, 2.219838),
            (3.085773, -4.792952, 2.214932),
            (3.036201, -4.788667, 2.234625),
            (3.176269, -4.718851, 2.274344),
            (3.488444, -4.858489, 1.745680),
        ),
    ),
    9: Quintics(
        0.0001,
        (
            (3.103499, -4.772951, 2.252477),
            (3.098809, -4.802295, 2.212918),
            (3.109264, -4.791662, 2.208256),
            (3.062731, -4.783199, 2.216967),
            (3.125313, -4.721163, 2.237398),
            (3.103968, -4.728457, 2.132774),
            (3.029904, -4.704619, 2.169558),
            (3.128350, -4.607802, 2.228731),
            (3.474951, -4.881360, 1.717543),
        ),
    ),
}
DEFAULT_STEPS = 6
POINTS = 300
LAWSON_ROUNDS = 60


def iterates(x: "NDArray[np.float64]", steps: int) -> "NDArray[np.float64]":
    """Return the iterates x_0, ..., x_steps of n numbers, shape (n, steps + 1)."""
    columns = [x]
    for a, b, c in TABLES[steps].coefficients:
        square = columns[-1] ** 2
        columns.append(columns[-1] * (a + b * square + c * square**2))
    return np.stack(columns, axis=1)


def domain_start(power: float, steps: int) -> float:
    """Return the lower end of the domain of the weighted iterates, as a multiple of the Schatten-4 norm.

    For p < 0 it lies three times higher than the table's. Such a power rises towards small values and needs large weights
    of opposite signs; giving up a third of the reach halves the error.
    """
    return TABLES[steps].low * (3 if power < 0 else 1)


@lru_cache(maxsize=4096)
def power_weights(power: float, steps: int) -> tuple[float, ...]:
    """Return the ``steps + 1`` weights w for which sum_k w_k x_k has the least largest relative error against x^power.

    For 0 <= power <= 1 no weight is negative beyond rounding; for powers below 0 the error grows.
    """
    x = np.geomspace(domain_start(power, steps), 1, POINTS)
    return tuple(_lawson(iterates(x, steps) / x[:, None] ** power).tolist())


@lru_cache(maxsize=16)
def count_weights(steps: int) -> tuple[float, ...]:
    """Return the ``4 * steps + 1`` weights of traces whose sum counts the singular values in the table's domain.

    The traces of step k are those of A_k, A_k^2, A_k B_k and B_k^2, where A_k = X_k X_k^T and B_k = b_k A_k + c_k A_k^2; the
    last one is that of A_steps. Each singular value in the domain counts as 1 within 0.1 %, one at a third of its lower end
    as 0.4.
    """
    return tuple(_lawson(trace_features(np.geomspace(TABLES[steps].low, 1, POINTS), steps)).tolist())


def trace_features(x: "NDArray[np.float64]", steps: int) -> "NDArray[np.float64]":
    """Return what n singular values add to the traces of ``count_weights``, shape (n, 4 * steps + 1)."""
    squares = iterates(x, steps) ** 2
    columns = []
    for square, (_, b, c) in zip(squares.T, TABLES[steps].coefficients, strict=False):
        B = square * (b + c * square)
        columns += [square, square**2, square * B, B**2]
    return np.stack([*columns, squares[:, -1]], axis=1)


def largest_error(power: float, steps: int) -> float:
    """Return the largest relative error of the weighted iterates against x^power on the domain, as a fraction."""
    x = np.geomspace(domain_start(power, steps), 1, 20_000)
    return float(np.abs(iterates(x, steps) @ power_weights(power, steps) / x**power - 1).max())


def _lawson(basis: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the coefficients c with the least largest |basis @ c - 1|, by Lawson's reweighted least squares (C. Lawson 1961)."""
    weights: NDArray[np.float64] = np.ones(len(basis))
    best: NDArray[np.float64] = np.zeros(basis.shape[1])
    best_error = np.inf
    for _ in range(LAWSON_ROUNDS):
        root = np.sqrt(weights)
        c = np.linalg.lstsq(root[:, None] * basis, root, rcond=None)[0]
        residual = np.abs(basis @ c - 1)
        if residual.max() < best_error:
            best, best_error = c.astype(np.float64), residual.max()
        if best_error < 1e-12:  # power = 1: the first iterate alone
            break
        weights *= residual / (weights @ residual)
    return best
