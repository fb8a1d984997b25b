"""Truncation: one matrix is the other one without its small singular values."""

import math
from dataclasses import dataclass

import numpy as np

# What the product of the factors may leave of the removed values, as a share of the energy of the change, and how far that
# energy may be from the one that the removed values had.
LEFT, CLOSE = 1e-5, 1e-3
# A change that is hardly larger than rounding cannot tell; a truncation is so many times as large, by energy.
TELLING = 10.0
# Before any eigenvalue is known, the same test is as rough as the factors in single precision make it.
ROUGHLY = 0.1


@dataclass(frozen=True)
class Truncation:
    """How a matrix was truncated.

    Attributes:
        rank: The rank that is left.
        of: The rank that the other matrix has.
        in_a: Whether A is the truncated one.
    """

    rank: int
    of: int
    in_a: bool


def truncation_of(evals: tuple[np.ndarray, np.ndarray], energy: float, noise: float) -> Truncation | None:
    """Return how one of two matrices truncates the other, or None.

    ``evals`` are the eigenvalues of ``W^T W``, ascending; ``energy`` is the squared norm of the change, and ``noise`` that of all
    rounding errors.
    """
    if energy < TELLING * noise:
        return None
    for (whole, left), in_a in ((evals, False), (evals[::-1], True)):
        removed = int((np.cumsum(left) <= max(LEFT * energy, noise)).sum())
        rank = len(left) - removed
        # Of all matrices of this rank, only the leading part of the other one is so close to it (Eckart and Young).
        if removed and rank and abs(float(whole[:removed].sum()) - energy) <= CLOSE * energy + noise:
            of = len(whole) - int((np.cumsum(whole) <= noise).sum())
            return Truncation(rank, of, in_a)
    return None


def may_be_truncated(squares: tuple[float, float], energy: float, noise: float) -> bool:
    """Return whether the change is roughly orthogonal to one of the two, as that of a truncation is (Pythagoras)."""
    return abs(abs(squares[0] - squares[1]) - energy) <= ROUGHLY * energy + 2 * math.sqrt(noise * max(squares))
