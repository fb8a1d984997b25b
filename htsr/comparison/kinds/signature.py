"""What the change of one matrix says about the kind of change of the whole model."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from htsr.comparison.distances import overlap, overlap_beyond_chance
from htsr.comparison.kinds.grids import Grid, grid_of
from htsr.comparison.kinds.lines import Lines, lines_of
from htsr.comparison.kinds.low_rank import SMALLEST_SIDE, LowRank, low_rank
from htsr.comparison.kinds.masks import Mask, mask_of
from htsr.comparison.kinds.mixtures import Mixture, mixture_of
from htsr.comparison.kinds.precision import rounding_energy
from htsr.comparison.kinds.scalings import Scaling, scaling_of
from htsr.comparison.kinds.truncation import Truncation, may_be_truncated, truncation_of
from htsr.comparison.kinds.whiteness import above_noise
from htsr.comparison.survey.differences import SAME, STANDARD_ERRORS, Difference, difference
from htsr.comparison.survey.networks import squeezed
from htsr.spectra.spectrum import esd

# Correlations up to this, or up to STANDARD_ERRORS of their standard errors, count as none: two trainings of one network differ
# in their seeds, but both learn which inputs and which offsets matter.
CHANCE = 0.1
# Singular values that agree to this are those of one matrix whose rows and columns were reordered, rotated or flipped.
# A small change keeps them, too: this one is at least so large, by energy.
SAME_SPECTRUM, MUCH = 1e-3, 0.25
# Leading subspaces that agree so well, beyond chance, are those of one matrix, even if its values were put into another order. A
# matrix with fewer rows or columns than ``SMALLEST_SIDE`` has too few directions and singular values for that to mean anything.
SHARED = 0.9
# A change is noise, by all that its spectrum says, if its largest eigenvalue is at most 1 + NOISE * M^(-2/3) times that of noise:
# four standard deviations of the largest eigenvalue of an M x M matrix (Tracy-Widom), for two of them.
NOISE = 3.0


@dataclass(frozen=True, eq=False)
class Signature:
    """What is known of the change of one matrix; None where a matrix is not changed in this way.

    Attributes:
        name: Name of the layer.
        values: How many values the matrix has.
        smallest_side: The smaller side of the matrix.
        square: Squared Frobenius norm of A.
        energy: The same of the change.
        difference: How A and B differ, value by value.
        mask: How B was pruned.
        scaling: How B was rescaled.
        grid: How B was quantised.
        lines: The rows or columns that changed or moved, if these are few or nothing but their order changed.
        truncation: How B lost its small singular values.
        low_rank: The rank of the change.
        mixture: Where B lies between A and another parent.
        above_noise: The largest eigenvalue of the change, over that of the same change with random signs; about 1 for noise.
        overlap: The larger of the overlaps of the leading subspaces, of the outputs and of the inputs.
        shared: The same beyond what two random matrices of this shape have: 0 for these, 1 for equal subspaces.
        same_spectrum: Whether A and B have the same singular values, though their values differ much.
    """

    name: str
    values: int
    smallest_side: int
    square: float
    energy: float
    difference: Difference
    mask: Mask | None = None
    scaling: Scaling | None = None
    grid: Grid | None = None
    lines: Lines | None = None
    truncation: Truncation | None = None
    low_rank: LowRank | None = None
    mixture: Mixture | None = None
    above_noise: float = math.nan
    overlap: float = math.nan
    shared: float = math.nan
    same_spectrum: bool = False

    @property
    def by_chance(self) -> bool:
        """Whether the values of A and B correlate no more than by chance."""
        least = max(CHANCE, STANDARD_ERRORS / math.sqrt(self.values))
        return abs(self.difference.correlation) <= least

    @property
    def is_reordered(self) -> bool:
        """Whether B has the rows or columns of A in another order, or other values and the same singular values or directions."""
        if self.lines and self.lines.reordered:
            return True
        same = self.same_spectrum or (self.by_chance and self.shared >= SHARED)
        return same and self.smallest_side >= SMALLEST_SIDE

    @property
    def is_partial(self) -> bool:
        """Whether only few rows or columns changed."""
        return self.lines is not None and not self.lines.reordered

    @property
    def is_noise(self) -> bool:
        """Whether no direction of the change is stronger than in noise; of a small matrix, or few rows, nobody can tell."""
        if self.lines:
            return False
        return self.smallest_side >= SMALLEST_SIDE and self.above_noise <= 1 + NOISE * self.smallest_side ** (-2 / 3)


def signature(
    name: str,
    a: torch.Tensor,
    b: torch.Tensor,
    change: torch.Tensor,
    dtypes: tuple[str, str],
    *,
    other: torch.Tensor | None,
    norms: tuple[float, float, float],
    evals: tuple[np.ndarray, np.ndarray, np.ndarray],
    angles: tuple[np.ndarray, np.ndarray],
) -> Signature:
    """Return the signature of a change, ``change = b - a``, of weights of one shape that are stored as ``dtypes``.

    ``other`` is the same weight of another parent, if there is one; ``norms`` and ``evals`` are those of A, of B
    and of the change, ``angles`` those of the leading subspaces of the outputs and of the inputs.
    """
    A, B, change = (weight.float() if weight.dtype.itemsize == 1 else weight for weight in map(_matrix, (a, b, change)))
    axes = tuple(range(len(squeezed(tuple(A.shape)))))
    found = Difference("equal", "", 0.0, 0.0, 1.0) if norms[2] == 0 else difference(A, B, axes, dtypes)
    square_a, square_b, energy = (norm**2 for norm in norms)
    known = Signature(
        name,
        A.numel(),
        min(A.shape),
        square_a,
        energy,
        found,
        mixture=None if other is None else mixture_of(A, B, _matrix(other).to(A.device)),
        overlap=max(map(overlap, angles)),
        shared=max(map(overlap_beyond_chance, angles, A.shape)),
    )
    if found.kind in SAME:
        return known
    noise = rounding_energy(A, square_a) + rounding_energy(B, square_b)
    if mask := mask_of(A, B, dtypes):
        return replace(known, mask=mask)
    known = replace(known, lines=lines_of(A, B, change))
    if known.lines and known.lines.reordered:
        return known
    if scaling := scaling_of(A, B, energy, noise):
        return replace(known, scaling=scaling)
    if found.kind != "quantised" and (grid := grid_of(A, B, found.relative_change)):
        return replace(known, grid=grid)
    N, M = max(A.shape), min(A.shape)
    edge = (math.sqrt(N) + math.sqrt(M)) ** 2 / A.numel()  # Marchenko-Pastur, of noise with an energy of 1
    of_a, of_b, of_change = evals
    if a.ndim > 2:  # these are eigenvalues of slices
        of_change = esd(change, noise * edge)
        if known.by_chance:
            of_a, of_b = esd(A), esd(B)
    if may_be_truncated((square_a, square_b), energy, noise):
        whole = (esd(A), esd(B)) if a.ndim > 2 else (of_a, of_b)
        if truncation := truncation_of(whole, energy, noise):
            return replace(known, truncation=truncation)
    return replace(
        known,
        low_rank=low_rank(A, change, of_change, energy, noise, noise * edge),
        above_noise=above_noise(change, float(of_change[-1])),
        same_spectrum=energy >= MUCH * square_a and _are_equal(of_a, of_b),
    )


def _are_equal(of_a: np.ndarray, of_b: np.ndarray) -> bool:
    """Return whether two spectra are equal, up to rounding."""
    return np.allclose(of_a, of_b, rtol=SAME_SPECTRUM, atol=SAME_SPECTRUM * float(of_a.mean()))


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as a matrix, ``(out, in * prod(kernel))``."""
    return weight.flatten(1)
