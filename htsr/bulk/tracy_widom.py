"""Where the largest eigenvalue of pure noise ends: the Tracy-Widom law at the Marchenko-Pastur edge."""

import math
from functools import lru_cache

import scipy

# A gamma distribution that matches the first three moments of the Tracy-Widom law of order 1
# (Chiani 2014, "Distribution of the largest eigenvalue for real Wishart and Gaussian random matrices", Table 1).
_SHAPE, _SCALE, _SHIFT = 46.446, 0.186054, 9.84801
MEAN, DEVIATION = _SHAPE * _SCALE - _SHIFT, math.sqrt(_SHAPE) * _SCALE


def tracy_widom_edge(
    N: float, M: float, *, level: float = 0.99, matrices: int = 1, variance_error: float = 0.0
) -> float:
    """Quantile of the largest eigenvalue of ``W^T W`` for an N x M matrix W of independent standard normals.

    Args:
        N: The larger side; it need not be whole.
        M: The smaller side.
        level: The quantile, in (0, 1).
        matrices: Number of independent matrices whose largest eigenvalue is meant: the slices of a convolution, for instance.
        variance_error: Relative standard error of the variance that the caller will multiply the quantile by. If the caller
            estimates the variance from the same matrix, its error moves the edge about as far as chance moves the largest
            eigenvalue of a small matrix.

    Returns:
        The quantile, in units of the entries' variance.

    Notes:
        Centring and scaling of Johnstone (2001), eq. 1.3. His theorem pairs N - 1 with M. The error of the variance and the
        fluctuation of the eigenvalue have a correlation of 0.1 (measured), so their squares add.

    Example:
        >>> round(tracy_widom_edge(400, 200) / (20 + 200**0.5) ** 2, 3)
        1.028
    """
    root_N, root_M = math.sqrt(N - 1), math.sqrt(M)
    centre = (root_N + root_M) ** 2
    width = (root_N + root_M) * (1 / root_N + 1 / root_M) ** (1 / 3)
    quantile = _quantile(level ** (1 / matrices))
    standard_errors = (quantile - MEAN) / DEVIATION
    return float(centre + width * MEAN + standard_errors * math.hypot(width * DEVIATION, centre * variance_error))


@lru_cache
def _quantile(level: float) -> float:
    """Return the quantile of the Tracy-Widom law of order 1."""
    return float(scipy.special.gammaincinv(_SHAPE, level) * _SCALE) - _SHIFT


def edge_score(eigenvalue: float, N: int, M: int) -> tuple[float, float]:
    """Return an eigenvalue on the scale of the Tracy-Widom law, and the centre of the edge in units of its width."""
    root_N, root_M = math.sqrt(N - 1), math.sqrt(M)
    centre = (root_N + root_M) ** 2
    width = (root_N + root_M) * (1 / root_N + 1 / root_M) ** (1 / 3)
    return (eigenvalue - centre) / width, centre / width


def share_above(score: float) -> float:
    """Return the share of the Tracy-Widom law of order 1 above a score."""
    return float(scipy.special.gammaincc(_SHAPE, max((score + _SHIFT) / _SCALE, 0.0)))
