"""Are the entries of a matrix independent, whatever their law and the scales of rows and columns?

A balanced matrix (``htsr.bulk.balance``) of independent entries has statistics whose laws hardly depend on what the entries were
like (``htsr.bulk.balanced_noise``). So one test serves noise of every kind, and it needs no draws.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from htsr.bulk.balance import balanced
from htsr.bulk.balanced_noise import (
    BalancedNoise,
    largest_eigenvalue,
    neighbour_scores,
    pair_p_value,
    pair_sum,
    small_gram,
)
from htsr.spectra.threads import blas_threads

# A slice with a smaller side says too little.
MIN_SIDE = 16
# p-values below this are not told apart.
SMALLEST_P = 3e-6
# The p-value combines three questions unequally (weighted Bonferroni): is the largest eigenvalue too large, are pairs of columns
# too alike or too different, do neighbours resemble each other? The first finds weak spikes, the second nearly all else.
WEIGHTS = (0.6, 0.3, 0.1)
# A matrix with longer sides is tested on blocks first, and as a whole only if they pass for noise: the block of a trained layer
# nearly always shows structure, and costs next to nothing.
BLOCKS = (128, 256)
# Of a larger weight, the middle of its longer side stands for it: balancing takes three float32 copies.
MAX_ENTRIES = 2**26
# A resemblance of neighbours gets a name if chance gives it once in so many matrices.
NAMED_P = 1e-4
NEIGHBOURS = (
    "neighbouring rows are correlated",
    "neighbouring columns are correlated",
    "the sizes of neighbouring rows are correlated",
    "the sizes of neighbouring columns are correlated",
)


@dataclass(frozen=True)
class Independence:
    """What a test of independent entries found.

    Attributes:
        p_value: How rarely independent entries look as structured as these; never below 3e-6.
        scales: Whether the scales of rows or columns differ by more than chance. Not looked at, and False, where a block of the
            weight has shown its structure.
        entries: Whether the entries, once the scales are divided out, are not normal. Not looked at in the same case.
        zeros: Share of the entries that are zero.
        neighbours: What neighbouring entries have in common, one of ``NEIGHBOURS``; empty if nothing was found.
    """

    p_value: float
    scales: bool
    entries: bool
    zeros: float
    neighbours: str


def independence(weight: torch.Tensor, *, bounded: bool = True) -> Independence | None:
    """Test whether the entries of a weight are independent but for a scale of each row and column.

    Args:
        weight: ``(out, in)`` or ``(out, in, *kernel)``, finite; the slices of a convolution count as matrices.
        bounded: Allow entries of any law; otherwise large entries count as structure.

    Returns:
        What was found, or None if a side is below 16, not counting rows and columns of zeros.

    Notes:
        The scales of rows and columns are divided out first, so their norms are equal. Then three questions are asked.

        1. Does the largest eigenvalue lie above its Tracy-Widom law?
        2. Is the sum of ``y_ki y_kj y_li y_lj`` over all pairs of columns i, j and of rows k, l far from zero on either side?
           Its mean is zero for independent entries whatever their variances.
        3. Are neighbours along rows or columns correlated, or their squares? This shows rows that depend on each other, a
           mask of blocks, and 2:4 sparsity.
    """
    W_nmR = weight.detach().flatten(2) if weight.ndim > 2 else weight.detach()[:, :, None]
    for side in BLOCKS:
        slices = max(1, side**2 // (min(W_nmR.shape[0], side) * min(W_nmR.shape[1], side)))
        block_nmR = _middle(W_nmR[:, :, :slices], side, side)
        if block_nmR.shape == W_nmR.shape:
            break
        found = _tested(block_nmR, bounded, whole=False)
        if found is not None and found.p_value <= SMALLEST_P:
            return found
    n, m, R = W_nmR.shape
    longest = max(min(n, m), MAX_ENTRIES // (min(n, m) * R))
    return _tested(_middle(W_nmR, longest, longest), bounded)


def _middle(W_nmR: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return at most so many rows and columns, from the middle, where no unused or special tokens stand."""
    first_n, first_m = max(W_nmR.shape[0] - rows, 0) // 2, max(W_nmR.shape[1] - columns, 0) // 2
    return W_nmR[first_n : first_n + rows, first_m : first_m + columns]


def _tested(W_nmR: torch.Tensor, bounded: bool, *, whole: bool = True) -> Independence | None:
    """Return what a weight shows; of a block, which is not the ``whole``, only whether it has much structure."""
    stack_Rnm = W_nmR.permute(2, 0, 1).to("cpu", torch.promote_types(W_nmR.dtype, torch.float32)).numpy()
    if min(stack_Rnm.shape[1:]) < MIN_SIDE:
        return None
    with blas_threads(1):  # the last digits depend on the number of threads
        slices = [
            matrix for W_nm in stack_Rnm if min((matrix := balanced(W_nm, bounded=bounded)).Y_nm.shape) >= MIN_SIDE
        ]
        if not slices:
            return None
        noises = [BalancedNoise.like(matrix) for matrix in slices]
        pairs, least, fluctuation_2 = 0.0, 1.0, np.ones(2)
        for matrix, noise in zip(slices, noises, strict=True):
            gram = small_gram(matrix.Y_nm)
            pairs += (of_slice := pair_sum(matrix.Y_nm, gram))
            fluctuation_2 = np.maximum(fluctuation_2, noise.fluctuation(of_slice))
            if whole:
                least = min(least, noise.share_above(largest_eigenvalue(gram)))
        scores_42 = np.sum([neighbour_scores(matrix.Y_nm) for matrix in slices], axis=0) / math.sqrt(len(slices))
    p_values = (
        -math.expm1(len(slices) * math.log1p(-min(least, 1 - 1e-12))),
        pair_p_value(pairs, noises),
        _least_of_four(scores_42[:, 0]),
    )
    p = min(p / weight for p, weight in zip(p_values, WEIGHTS, strict=True))
    return Independence(
        min(max(p, SMALLEST_P), 1.0),
        scales=whole and any(n.has_scales(m.log_rows_n, m.log_columns_m) for n, m in zip(noises, slices, strict=True)),
        entries=whole and not all(noise.is_normal for noise in noises),
        zeros=float(np.mean(stack_Rnm == 0)),
        neighbours=_named(scores_42, fluctuation_2),
    )


def _named(scores_42: np.ndarray, fluctuation_2: np.ndarray) -> str:
    """Return what neighbours have in common, if it is more than what all rows or columns have, and more than chance."""
    surplus_4 = (scores_42[:, 0] - scores_42[:, 1]) / math.sqrt(2) / np.tile(fluctuation_2, 2)
    return NEIGHBOURS[int(np.abs(surplus_4).argmax())] if _least_of_four(surplus_4) < NAMED_P else ""


def _least_of_four(scores_4: np.ndarray) -> float:
    """Return the p-value of the largest of four normal scores, on either side."""
    return min(1.0, len(scores_4) * math.erfc(float(np.abs(scores_4).max()) / math.sqrt(2)))
