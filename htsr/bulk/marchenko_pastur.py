"""The Marchenko-Pastur law: where the eigenvalues of pure noise lie.

For an N x M matrix W of independent entries with mean 0 and variance 1, N >= M both large, the eigenvalues of W^T W fill
``[(sqrt(N) - sqrt(M))^2, (sqrt(N) + sqrt(M))^2]``. With ``y = M / N`` and ``lambda / N = 1 + y + 2 sqrt(y) cos(t)`` the law is
smooth in the angle t of [0, pi] (t = 0 is the upper edge), also at N = M, where its density is infinite at 0; every integral
that this file needs is elementary. N and M need not be whole. All eigenvalues are in units of the entries' variance.

A finite matrix differs from the law by parts of one eigenvalue. The functions here include them, because a test for noise in a
small matrix depends on them (Bai and Silverstein 2010, section 9.7, the mean of linear spectral statistics). Real entries put a
quarter of an eigenvalue more at either edge and half a one less, evenly in t, between. Entries with an excess kurtosis K (0 for
normal ones) add K / pi times cos(2 t).
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import scipy


def edges(N: float, M: float) -> tuple[float, float]:
    """Return the lower and the upper edge of the law, ``(sqrt(N) -+ sqrt(M))^2``."""
    return float((np.sqrt(N) - np.sqrt(M)) ** 2), float((np.sqrt(N) + np.sqrt(M)) ** 2)


def cdf(x: np.ndarray, N: float, M: float, kurtosis: float = 0.0) -> np.ndarray:
    """Return the expected share of the eigenvalues at or below x, to order 1 / M; ``kurtosis`` is that of the entries."""
    cosine = (np.asarray(x) / N - 1 - M / N) / (2 * np.sqrt(M / N))
    t = np.arccos(np.clip(cosine, -1, 1))
    moved = np.where((t > 0) & (t < np.pi), t / (2 * np.pi) - 0.25, 0) - kurtosis * np.sin(2 * t) / (2 * np.pi)
    return 1 - mass_above(t, M / N) + moved / M


def lower_mean(share: float, N: float, M: float, kurtosis: float = 0.0) -> float:
    """Return the expected mean of the lowest eigenvalues, a ``share`` in (0, 1) of all, to order 1 / M."""
    y = M / N
    t = _angle(share, y)
    sin, cos = math.sin(t), math.cos(t)
    sum_above = (t - sin * cos) / math.pi  # the density times lambda / N is 2 / pi sin^2 t
    # An eigenvalue that the terms of order 1 / M move across the quantile counts as the quantile: integrals of cos(u) - cos(t).
    moved = (cos - 1) / 4 + (sin - t * cos) / (2 * math.pi) - kurtosis * sin**3 / (3 * math.pi)
    return N * (1 - sum_above + 2 * math.sqrt(y) * moved / M) / share


@lru_cache(maxsize=4096)  # layers of one shape ask for the same angles again and again
def _angle(share: float, y: float) -> float:
    """Return the angle below which a ``share`` of the eigenvalues lie."""
    # The solver tries ten angles, and what follows is the same for each.
    sin, tan, atan, root, above = math.sin, math.tan, math.atan, math.sqrt(y), 1 - share
    ratio, times_t, times_turn = (1 - root) / (1 + root), 1 + y, (1 - y) / (2 * y)

    def excess(t: float) -> float:
        """Return ``mass_above(t, y) - above``, to the last bit."""
        turn = atan(ratio * tan(t / 2))
        return 2 / math.pi * (-sin(t) / (2 * root) + times_t * t / (4 * y) - times_turn * turn) - above

    return float(scipy.optimize.brentq(excess, 0, math.pi, xtol=1e-9))


def mass_above(t: Any, y: float) -> Any:
    """Return the share of the eigenvalues above the angle or angles t, with ``y = M / N``.

    This is the integral from 0 to t of 2 / pi sin^2 t / (1 + y + 2 sqrt(y) cos(t)).
    """
    # numpy takes ten times as long as math for a single number
    sin, tan, atan = (np.sin, np.tan, np.arctan) if isinstance(t, np.ndarray) else (math.sin, math.tan, math.atan)
    root = math.sqrt(y)
    turn = atan((1 - root) / (1 + root) * tan(t / 2))
    return 2 / math.pi * (-sin(t) / (2 * root) + (1 + y) * t / (4 * y) - (1 - y) / (2 * y) * turn)
