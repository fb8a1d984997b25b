"""Similarity of two weights of one shape: CKA and principal angles.

Shapes: a weight is treated as a matrix ``(out, in)``, a convolution as ``(out, in * prod(kernel))``. N and M are the larger and
the smaller side of that matrix, K the number of leading directions.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy
import torch

from htsr.spectra.spectrum import BLOCK_ROWS, Gram, Spectrum, binary_exponent, rounding_edge, times_power_of_two

# CKA multiplies squares of squares: entries beyond 2^-60 to 2^60 are divided by a power of two first, so that none over- or
# underflows. Ordinary weights never are.
MAX_EXPONENT = 60


class Similarity(NamedTuple):
    """How similar two matrices are in direction, whatever their scale.

    Attributes:
        cka: Linear CKA of the rows, columns centred (Kornblith et al. 2019, equation 3 with linear kernels); 1 for matrices
            that differ by scale, rotation of the columns and an offset common to all rows. NaN if one is constant.
        cka_uncentred: The same without centring. WeightWatcher's ``cka`` is its square root.
        angles_out: Principal angles between the leading left singular subspaces (of the outputs), radians, descending.
        angles_in: The same for the right singular subspaces (of the inputs).
    """

    cka: float
    cka_uncentred: float
    angles_out: np.ndarray
    angles_in: np.ndarray


def similarity(
    a: torch.Tensor,
    b: torch.Tensor,
    rank: int,
    grams: tuple[Gram, Gram] | None = None,
    vectors: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> Similarity:
    """Return the CKA and the principal angles of two weights of one shape, finite, ``(out, in)`` or ``(out, in, *kernel)``.

    ``grams`` are their Gram matrices, and ``vectors`` the ``rank`` leading eigenvectors of these, if the caller has them.
    """
    # CKA's examples are the rows, one for each output unit. The Gram matrices are accumulated in float64, a block of rows at a
    # time, and only the leading eigenvectors are computed: ``rank`` of them, or fewer where a matrix has a lower rank. If the
    # singular values number rank and rank + 1 are nearly equal, the subspace is arbitrary and its largest angle too; the mean
    # squared cosine of all angles (``overlap``) suffers less. Two random subspaces of dimension k in dimension n have an overlap
    # of k / n.
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"expected two weights of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if grams is not None and a.ndim == 2 and all(map(_is_ordinary, grams)):
        A, B = a, b
        aa_MM, bb_MM = (gram.stack[0] for gram in grams)
    else:
        A, B, vectors = _ordinary(a.flatten(1)), _ordinary(b.flatten(1)), (None, None)
        aa_MM, bb_MM = (Gram.of(W).stack[0] for W in (A, B))
    tall = A.shape[0] >= A.shape[1]
    A_NM, B_NM = (A, B) if tall else (A.mT, B.mT)
    M = A_NM.shape[1]
    if tall:
        ab_MM = torch.zeros(M, M, dtype=torch.float64, device=A.device)
        sum_a_M, sum_b_M = (torch.zeros(M, dtype=torch.float64, device=A.device) for _ in range(2))
        for a_BM, b_BM in zip(A_NM.split(BLOCK_ROWS), B_NM.split(BLOCK_ROWS), strict=True):
            a_BM, b_BM = a_BM.to(torch.float64), b_BM.to(torch.float64)
            ab_MM += a_BM.mT @ b_BM
            sum_a_M += a_BM.sum(0)
            sum_b_M += b_BM.sum(0)
        n = A_NM.shape[0]
        uncentred = _cka(_square(ab_MM), aa_MM, bb_MM)
        centred = _cka(
            _square(ab_MM - torch.outer(sum_a_M, sum_b_M) / n),
            aa_MM - torch.outer(sum_a_M, sum_a_M) / n,
            bb_MM - torch.outer(sum_b_M, sum_b_M) / n,
        )
    else:  # aa and bb are the kernels A A^T and B B^T of the rows
        uncentred = _cka(float((aa_MM * bb_MM).sum()), aa_MM, bb_MM)
        ka_MM, kb_MM = _double_centred(aa_MM), _double_centred(bb_MM)
        centred = _cka(float((ka_MM * kb_MM).sum()), ka_MM, kb_MM)

    short_a, short_b = (
        _leading(gram_MM, W_NM, W.dtype, rank) if known is None else known
        for known, gram_MM, W_NM, W in zip(vectors, (aa_MM, bb_MM), (A_NM, B_NM), (a, b), strict=True)
    )
    K = min(short_a.shape[1], short_b.shape[1])
    short_a, short_b = short_a[:, :K], short_b[:, :K]
    long_a, long_b = _other_side(A_NM, short_a), _other_side(B_NM, short_b)
    angles = [_angles(short_a, short_b), _angles(long_a, long_b)]
    angles_out, angles_in = angles[::-1] if tall else angles
    return Similarity(centred, uncentred, angles_out, angles_in)


def similarity_of_equal(a: torch.Tensor, rank: int, spectrum: Spectrum) -> Similarity:
    """Return what ``similarity`` does for a weight and itself, up to rounding, from its spectrum."""
    if a.ndim > 2:  # the spectrum is that of slices
        return similarity(a, a, rank)
    constant = bool((a == a[:1]).all())  # rows that are all equal have no variance
    angles = np.zeros(min(rank, len(spectrum.nonzero)))
    return Similarity(math.nan if constant else 1.0, 1.0 if len(spectrum.nonzero) else math.nan, angles, angles)


def _is_ordinary(gram: Gram) -> bool:
    """Return whether squares of the squares of the weight's entries neither over- nor underflow."""
    largest = float(gram.stack.diagonal(dim1=-2, dim2=-1).max())  # up to N times the square of the largest entry
    return not gram.exponent and gram.N * 2.0 ** (-2 * MAX_EXPONENT) < largest < 2.0 ** (2 * MAX_EXPONENT)


def _ordinary(W: torch.Tensor) -> torch.Tensor:
    """Return the matrix, divided by a power of two if squares of squares of its entries could over- or underflow."""
    exponent = binary_exponent(W)
    return W if abs(exponent) <= MAX_EXPONENT else times_power_of_two(W.to(torch.float64), -exponent)


def overlap(angles: np.ndarray) -> float:
    """Return the mean squared cosine of principal angles: 1 for equal subspaces, 0 for orthogonal ones, NaN for no angle."""
    return float(np.mean(np.cos(angles) ** 2)) if len(angles) else math.nan


def overlap_beyond_chance(angles: np.ndarray, dimension: int) -> float:
    """Return the overlap of two subspaces of a space, less that of two random ones: 1 for equal, 0 for random, or without any."""
    chance = len(angles) / dimension
    return (overlap(angles) - chance) / (1 - chance) if 0 < chance < 1 else 0.0


def _cka(cross: float, aa: torch.Tensor, bb: torch.Tensor) -> float:
    """Return CKA from the squared norm of the cross product and the two Gram matrices, NaN if one is zero."""
    scale = math.sqrt(_square(aa) * _square(bb))
    return min(cross / scale, 1.0) if scale > 0 else math.nan


def _square(matrix: torch.Tensor) -> float:
    """Return the squared Frobenius norm."""
    return float(matrix.square().sum())


def _double_centred(kernel: torch.Tensor) -> torch.Tensor:
    """Return a kernel with the mean of each row and of each column removed."""
    rows = kernel.mean(0, keepdim=True)
    return kernel - rows - rows.mT + rows.mean()


def _leading(gram_MM: torch.Tensor, A_NM: torch.Tensor, dtype: torch.dtype, rank: int) -> np.ndarray:
    """Return the leading eigenvectors, shape ``(M, K)``, largest first, without those whose eigenvalue may be rounding."""
    N, M = A_NM.shape
    K = min(rank, M)
    evals, vectors = scipy.linalg.eigh(gram_MM.cpu().numpy(), subset_by_index=[M - K, M - 1])
    mean_square = float(gram_MM.diagonal().sum()) / (N * M)
    floor = max(
        rounding_edge(torch.finfo(dtype).eps, mean_square, N, M), torch.finfo(torch.float64).eps * N * evals[-1]
    )
    return vectors[:, evals > floor][:, ::-1]


def _other_side(A_NM: torch.Tensor, vectors_MK: np.ndarray) -> np.ndarray:
    """Return the singular vectors of the longer side, given those of the shorter side."""
    K = vectors_MK.shape[1]
    right = torch.as_tensor(vectors_MK.copy(), device=A_NM.device)
    blocks = [(block.to(torch.float64) @ right).cpu() for block in A_NM.split(BLOCK_ROWS)]
    product = torch.cat(blocks).numpy()
    return product / np.linalg.norm(product, axis=0) if K else product


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the principal angles between two subspaces, descending; none if one is empty."""
    return scipy.linalg.subspace_angles(a, b) if a.shape[1] else np.empty(0)
