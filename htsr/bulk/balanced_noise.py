"""The laws of balanced noise: statistics of matrices with independent bounded entries, and with rows and columns of equal norm.

Shapes: n rows, m columns. The laws depend on the sides and on v, the variance of the squared entries (1 more would be their mean
fourth power): 0 for random signs, 1.7 for bounded normal entries, 12 for a mask of 90 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from htsr.bulk.balance import BOUND, Balanced
from htsr.bulk.tracy_widom import MEAN, edge_score, share_above

# v of normal entries, and what to subtract from it for each 1 / n + 1 / m: bounded (measured) and not (exact to first order).
NORMAL_V = {True: (1.74, 2.3), False: (2.0, 6.0)}
# Scales, or v, differ from those of Gaussian noise if they do by so many standard errors.
BEYOND_CHANCE = 3.0
# The law of the largest eigenvalue is taken this much wider than fitted: its far tail, which counts where slices are pooled, is
# heavier for entries with heavy tails.
TAIL = 1.04
# Relative error of the largest eigenvalue; it fluctuates by a share m^(-2/3), 4e-3 at a side of 4096.
EXACT_ENOUGH = 1e-5


@dataclass(frozen=True)
class BalancedNoise:
    """Noise like one balanced matrix.

    Attributes:
        n: Number of rows.
        m: Number of columns.
        v: Variance of the squared entries.
        kept: Share of the squares that belong to entries within the bound.
        bounded: Whether entries were bounded.
    """

    n: int
    m: int
    v: float
    kept: float
    bounded: bool

    @classmethod
    def like(cls, matrix: Balanced) -> "BalancedNoise":
        """Return noise with the sides and the v of a matrix."""
        squares_nm = np.square(matrix.Y_nm)
        v = max(float(np.mean(np.square(squares_nm), dtype=np.float64)) - 1, 0.0)
        kept = 1.0
        if matrix.bounded:  # scaling after the last bound has moved entries at the bound by a few per cent
            kept = float(squares_nm[squares_nm < (0.97 * BOUND) ** 2].sum(dtype=np.float64)) / squares_nm.size
        n, m = matrix.Y_nm.shape
        return cls(n, m, v, kept, matrix.bounded)

    @property
    def pair_variance(self) -> float:
        """The variance of ``pair_sum``; its mean is 0, whatever the variances of the entries."""
        n, m = self.n, self.m
        # Two squares in one row have a correlation, since their sum is fixed. The last term is measured (mask of 90 %, 64 x 64).
        equal_norms = math.prod(1 - x + 0.7 * x**2 for x in (self.v / (n - 1), self.v / (m - 1)))
        return 4 * n * m * (n - 1) * (m - 1) * equal_norms**2

    def fluctuation(self, pair_sum: float) -> np.ndarray:
        """Return by how much more than chance the correlations of rows and of columns fluctuate from pair to pair."""
        of_rows, of_columns = self.n * self.m * (self.n - 1), self.n * self.m * (self.m - 1)
        return np.sqrt(1 + np.maximum(pair_sum, 0) / np.array([of_rows, of_columns]))

    @property
    def pair_skewness(self) -> float:
        """The skewness of ``pair_sum``, measured on Gaussian entries."""
        return 4 * (1 / self.n + 1 / self.m)

    def share_above(self, eigenvalue: float) -> float:
        """Return the share of such noise whose largest eigenvalue is larger.

        To first order the edge lies -(2 + v) / sqrt(n m) from where it lies for Gaussian noise, and the law of Tracy and Widom
        holds (Bao, Pan and Zhou 2012 for columns of equal norm). The rest was fitted to the mean and to the 95 and 98 % quantiles
        of 18 000 draws: seven laws, from random signs to a 90 % mask, and ten shapes, from 16 x 16 to 1024 x 128. The mean is
        right to a tenth of a deviation; sparse matrices ten times as long as wide come out up to 0.8 deviations too small.
        """
        score, edge = edge_score(eigenvalue, max(self.n, self.m), min(self.n, self.m))
        v, e = self.v, edge / math.sqrt(self.n * self.m)
        moved = -2.282 * e + 2.413 * e**2 + v * (-1.204 * e + 0.236 * e**2 + 1.133 * e**3) + 0.094 * v**2 * e**3
        narrowed = TAIL * math.exp(-1.137 * e**2 + v * (0.0373 * e**2 - 0.6117 * e**3))
        return share_above((score - moved - MEAN) / narrowed + MEAN)

    def has_scales(self, log_rows_n: np.ndarray, log_columns_m: np.ndarray) -> bool:
        """Return whether the scales of rows or of columns differ by more than the scales of such noise do by chance."""
        return any(
            float(np.var(logs)) > (1 + BEYOND_CHANCE * math.sqrt(2 / len(logs))) * self.v / (4 * across * self.kept**2)
            for logs, across in ((log_rows_n, self.m), (log_columns_m, self.n))
        )

    @property
    def is_normal(self) -> bool:
        """Whether v is that of normal entries, up to chance."""
        of_normal, less = NORMAL_V[self.bounded]
        error = math.sqrt(24 / (self.n * self.m))
        return abs(self.v - of_normal + less * (1 / self.n + 1 / self.m)) < BEYOND_CHANCE * error


def small_gram(Y_nm: np.ndarray) -> np.ndarray:
    """Return the Gram matrix of the shorter side, float32."""
    return Y_nm.T @ Y_nm if Y_nm.shape[0] >= Y_nm.shape[1] else Y_nm @ Y_nm.T


def pair_sum(Y_nm: np.ndarray, gram: np.ndarray) -> float:
    """Return the sum of ``y_ki y_kj y_li y_lj`` over all k != l and i != j: ``|Y^T Y|^2`` less the terms of one row or column."""
    squares_nm = np.square(Y_nm)
    of_rows, of_columns = squares_nm.sum(1, dtype=np.float64), squares_nm.sum(0, dtype=np.float64)
    total = float(np.square(gram, dtype=np.float64).sum())
    own = float(np.square(squares_nm).sum(dtype=np.float64))
    return total - float(of_rows @ of_rows) - float(of_columns @ of_columns) + own


def pair_p_value(total: float, noises: Sequence[BalancedNoise]) -> float:
    """Return how rarely the pair sums of slices add up to a total as far from 0 on either side, by a gamma law."""
    score = total / math.sqrt(sum(noise.pair_variance for noise in noises))
    skewness = sum(noise.pair_skewness for noise in noises) / len(noises) ** 1.5
    shape = 4 / skewness**2
    at = max(shape + score * math.sqrt(shape), 0.0)
    return 2 * float(min(0.5, scipy.special.gammaincc(shape, at), scipy.special.gammainc(shape, at)))


def largest_eigenvalue(gram: np.ndarray) -> float:
    """Return the largest eigenvalue of a Gram matrix, far more exactly than it fluctuates."""
    start = np.random.default_rng(len(gram)).standard_normal(len(gram), dtype=np.float32)  # the same on every call
    values = scipy.sparse.linalg.eigsh(gram, 1, which="LA", v0=start, tol=EXACT_ENOUGH, return_eigenvectors=False)
    return float(values[0])


def neighbour_scores(Y_nm: np.ndarray) -> np.ndarray:
    """Return how many standard errors the correlations of neighbours, and those of entries half a side apart, lie from 0.

    The result has shape ``(4, 2)``: values down, values across, squares down, squares across.
    """
    scores = []
    for X_nm, fixed_sum in ((Y_nm, 0), (np.square(Y_nm) - 1, 1)):
        variance = max(float(np.mean(np.square(X_nm), dtype=np.float64)), 1e-6)
        for X_sc in (X_nm, X_nm.T):
            side = len(X_sc)
            for lag in (1, side // 2):
                products = np.einsum("ij,ij->i", X_sc[:-lag], X_sc[lag:])
                pairs = len(products) * X_sc.shape[1]
                # The squares of a column add up to its length, so two of them have a correlation of -1 / (length - 1).
                correlation = float(products.sum(dtype=np.float64)) / pairs / variance + fixed_sum / (side - 1)
                scores.append(correlation * math.sqrt(pairs))
    return np.reshape(scores, (4, 2))
