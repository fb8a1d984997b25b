"""Changes of exactly low rank, and those that project directions out of a matrix."""

from dataclasses import dataclass, field

import numpy as np
import scipy
import torch

from htsr.comparison.figures import percent

# What may be left of the energy of a low-rank change: its own rounding to bfloat16, 2^-18 / 3 = 1.3e-6, if the product of the
# factors was computed in that type, and a little more.
LEFT = 4e-6
# A low rank is at most this share of the rank that the change could have: an adapter of a higher rank hardly saves anything, and
# rows in another order change a matrix by half of the possible rank or more, since a cycle of n rows has rank n - 1. The weakest
# direction is GAP times as strong as the next one, by energy; the spectrum of a change that training makes has no such gap.
LARGEST_SHARE, GAP = 0.25, 4.0
# A change that is hardly larger than the rounding of the weights shows only its strongest directions. One of low rank is so many
# times as large, by energy.
TELLING = 10.0
# Smaller matrices have a low rank by chance: a softmax layer of ten classes changes by rank nine.
SMALLEST_SIDE = 16
# Directions that may be projected out at once, and the least that may be left of a change beside the projection.
MOST_DIRECTIONS, PROJECTED = 8, 0.05
# Shares of the projected directions that are taken away: less than all if the projection was partial.
WEAKEST, STRONGEST = 0.02, 1.1


@dataclass(frozen=True, eq=False)
class Projection:
    """A change that takes a share of some directions away from one side of a matrix.

    Attributes:
        side: ``out`` or ``in``.
        directions: The directions, orthonormal columns.
        share: How much of them was taken away: 1 for all.
    """

    side: str
    directions: np.ndarray = field(repr=False)
    share: float


@dataclass(frozen=True)
class LowRank:
    """A change of exactly low rank, up to rounding.

    Attributes:
        rank: The rank.
        of: The rank that a change of these rows and columns could have.
        projections: The projections that the change may be.
    """

    rank: int
    of: int
    projections: list[Projection]

    @property
    def lost(self) -> str:
        """What the first of the projections takes away, in words."""
        first = self.projections[0]
        number = "a direction" if self.rank == 1 else f"{self.rank} directions"
        return f"{number} of its {'outputs' if first.side == 'out' else 'inputs'}, by {percent(first.share)} %"


def low_rank(
    a: torch.Tensor, change: torch.Tensor, evals: np.ndarray, energy: float, noise: float, edge: float
) -> LowRank | None:
    """Return the low rank of a change, or None if it has none or is too small to tell.

    ``evals`` are the eigenvalues of ``change^T change``, ascending, with 0 for those that rounding can make, up to ``edge``.
    ``energy`` is the squared norm of the change, and ``noise`` that of all rounding errors.
    """
    if energy < TELLING * noise:
        return None
    strongest = evals[evals > 0][::-1]
    left = energy - np.cumsum(strongest)
    found = np.flatnonzero(left <= max(LEFT * energy, noise))
    if not len(found) or found[0] + 1 > LARGEST_SHARE * min(change.shape):
        return None
    rank = int(found[0]) + 1
    could = min(int((change != 0).any(axis).sum()) for axis in (0, 1))
    following = strongest[rank] if rank < len(strongest) else edge
    if could < SMALLEST_SIDE or rank > LARGEST_SHARE * could or strongest[rank - 1] < GAP * following:
        return None
    return LowRank(rank, could, _projections(a, change, rank) if rank <= MOST_DIRECTIONS else [])


def _projections(a: torch.Tensor, change: torch.Tensor, rank: int) -> list[Projection]:
    """Return the sides of A on which the change of this rank is minus a share of a projection of A."""
    found = []
    W, D = (matrix.to(torch.float64).cpu().numpy() for matrix in (a, change))
    for side, A, change_of_A in (("out", W, D), ("in", W.T, D.T)):
        # change_of_A = -share U U^T A, with U the leading left vectors of the change
        U = _left_vectors(change_of_A, rank)
        parts, taken = U.T @ A, U.T @ change_of_A
        size = float((parts**2).sum())
        if size == 0:
            continue
        share = -float((parts * taken).sum()) / size
        left = float(((taken + share * parts) ** 2).sum()) / float((taken**2).sum())
        if left <= PROJECTED**2 and WEAKEST <= share <= STRONGEST:
            found.append(Projection(side, U, share))
    return found


def _left_vectors(change: np.ndarray, rank: int) -> np.ndarray:
    """Return the leading left singular vectors of a change, shape ``(rows, rank)``."""
    rows, columns = change.shape
    gram = change @ change.T if rows <= columns else change.T @ change
    vectors = scipy.linalg.eigh(gram, subset_by_index=[len(gram) - rank, len(gram) - 1])[1]
    return vectors if rows <= columns else np.linalg.qr(change @ vectors)[0]
