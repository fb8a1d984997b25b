"""The laws of noise's statistics for large matrices, in place of draws that would take seconds.

Shapes: N >= M are the sides of a matrix of independent standard normals.

Eigenvalues of large noise repel each other, so a statistic of all of them hardly varies, and what varies does so by laws that no
longer depend on the shape once they are scaled. ``benchmarks/null_laws.py`` drew the constants below from 16 shapes with M from
512 to 4096 and N / M from 1 to 64; ``tests/bulk/test_null_laws.py`` compares the laws with fresh draws of other shapes.
"""

import math

import numpy as np
import scipy

from htsr.bulk.tracy_widom import tracy_widom_edge

# Mean, its increase with ln M, and standard deviation of M times the KS distance of the bulk: 2.83, 3.13, 3.43 and 3.68 at M =
# 512, 1024, 2048 and 4096, whatever N / M, with a deviation of 0.31 to 0.34. The skewness is that of smaller matrices.
BULK_MEAN, BULK_SLOPE, BULK_DEVIATION, BULK_SKEWNESS = 3.43, 0.415, 0.33, 0.75

# What to multiply ``alpha_features`` and ``D_features`` by to get the quantiles at each level.
TABLE = (
    (0.005, -4.0250, -0.1971, 0.1896, 0.0940, 0.0023, 0.0034),
    (0.01, -4.0161, -0.2314, 0.2255, 0.0964, 0.0029, 0.0031),
    (0.02, -3.9490, -0.2404, 0.2404, 0.1021, 0.0009, 0.0035),
    (0.05, -3.8410, -0.2457, 0.2239, 0.1066, 0.0014, 0.0030),
    (0.1, -3.7266, -0.2337, 0.2540, 0.1086, 0.0023, 0.0035),
    (0.2, -3.5405, -0.2314, 0.2424, 0.1110, 0.0031, 0.0044),
    (0.3, -3.3955, -0.2350, 0.2432, 0.1126, 0.0034, 0.0052),
    (0.4, -3.2392, -0.2152, 0.2550, 0.1133, 0.0042, 0.0057),
    (0.5, -3.0825, -0.1973, 0.2451, 0.1135, 0.0052, 0.0060),
    (0.6, -2.8847, -0.1692, 0.2252, 0.1140, 0.0056, 0.0065),
    (0.7, -2.6624, -0.1608, 0.1634, 0.1145, 0.0061, 0.0069),
    (0.8, -2.4042, -0.1428, 0.1286, 0.1151, 0.0065, 0.0072),
    (0.9, -2.0678, -0.1380, 0.1088, 0.1157, 0.0071, 0.0078),
    (0.95, -1.7633, -0.1266, 0.1021, 0.1158, 0.0077, 0.0083),
    (0.98, -1.4941, -0.1203, 0.1426, 0.1157, 0.0084, 0.0092),
    (0.99, -1.3557, -0.0891, 0.1836, 0.1158, 0.0087, 0.0094),
    (0.995, -1.2341, -0.0862, 0.1133, 0.1150, 0.0096, 0.0099),
)
LEVELS = tuple(row[0] for row in TABLE)


def alpha_features(N: int, M: int) -> tuple[float, float, float]:
    """Return the numbers in which the quantiles of the standardised alpha are linear."""
    return 1.0, math.log(M / 2048), math.sqrt(M / N)


def D_features(N: int, M: int) -> tuple[float, float, float]:
    """Return the numbers in which the quantiles of D are linear."""
    return 1.0, 32 / math.sqrt(M), 32 / math.sqrt(N)


def edge_scale(N: int, M: int) -> float:
    """Return the relative distance at which the eigenvalues at the upper edge stand (Johnstone 2001, eq. 1.3)."""
    return float((1 / np.sqrt(N) + 1 / np.sqrt(M)) ** (1 / 3) / (np.sqrt(N) + np.sqrt(M)))


def standardised_alpha(alpha: np.ndarray, N: int, M: int) -> np.ndarray:
    """Return the logarithm of alpha - 1 in units of the edge: alpha of noise belongs to its largest few eigenvalues."""
    return np.log((alpha - 1) * edge_scale(N, M))


def draws_by_law(N: int, M: int, count: int) -> np.ndarray:
    """Return alpha, D, stable rank, entropy and bulk distance at ``count`` even levels, ascending: ``(5, count)``."""
    levels = (np.arange(count) + 0.5) / count
    scores, table = scipy.special.ndtri(levels), np.array(TABLE)
    known = scipy.special.ndtri(table[:, 0])
    # Beyond the shapes that were drawn, neighbouring quantiles may cross.
    standardised = np.maximum.accumulate(table[:, 1:4] @ alpha_features(N, M))
    alpha = 1 + np.exp(np.interp(scores, known, standardised)) / edge_scale(N, M)
    D = np.interp(scores, known, np.maximum.accumulate(table[:, 4:] @ D_features(N, M)))
    largest = np.array([tracy_widom_edge(N, M, level=1 - level) for level in table[:, 0]])
    stable_rank = np.interp(scores, known, N * M / largest)
    # The mean holds to order 1 / M. The squared factor is 4 for N much larger than M, where the deficit is that of a chi-square
    # law with M^2 / 2 degrees of freedom; draws gave 1.9 to 2.0 at N = M and 2.9 at N = 2 M.
    entropy = 1 - (M + 1 - np.sqrt(4 - 2 * M / N) * scores) / (2 * N * np.log(M))
    bulk = bulk_quantile(levels) * BULK_DEVIATION + BULK_MEAN + BULK_SLOPE * np.log(M / 2048)
    return np.array([alpha, D, stable_rank, entropy, bulk / M])


# A gamma law with mean 0, variance 1 and this skewness (Pearson type III); scipy.stats has it, and takes half a second to import.
_RATE = 2 / BULK_SKEWNESS
_SHAPE = _RATE**2


def bulk_quantile(levels: np.ndarray) -> np.ndarray:
    """Return quantiles of the standardised bulk distance."""
    return scipy.special.gammaincinv(_SHAPE, levels) / _RATE - _SHAPE / _RATE


def bulk_share_above(score: float) -> float:
    """Return the share of standardised bulk distances above one."""
    return float(scipy.special.gammaincc(_SHAPE, max(_RATE * (score + _SHAPE / _RATE), 0.0)))
