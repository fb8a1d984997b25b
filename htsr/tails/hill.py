"""The Hill estimator of the tail exponent."""

import numpy as np
from numpy.typing import ArrayLike

from htsr.errors import InputError


def hill(eigenvalues: ArrayLike, k: int | None = None) -> float:
    """Estimate the exponent from the k largest values (Hill 1975).

    ``alpha = 1 + k / sum_{i=1..k} ln(x_(n-i+1) / x_(n-k))``, with ``x_(1) <= ... <= x_(n)``.

    Args:
        eigenvalues: Values >= 0, in any order; zeros are left out.
        k: How many values exceed the threshold; half of them by default.

    Returns:
        alpha.

    Raises:
        ValueError: If ``k`` is not between 1 and n - 1.
        InputError: If a value is negative or not finite, or the k + 1 largest values are equal.

    Notes:
        This is the form of the papers (PL_Alpha_Hill with k = n/2). The code of TempBalance, AlphaPruning, AlphaDecay and
        FARMS also sums the threshold's own term, which is zero but counts, so its ``alpha - 1`` is larger by ``(k + 1) / k``:
        ``fit_power_law(x, xmin="median")`` is that code's estimate and ``xmin="median-paper"`` that of the papers.

        With k = n/2 the estimate mostly measures the aspect ratio: Gaussian noise gives 2.12, 2.71, 3.46 and 4.47 for Q = 1,
        2, 4 and 8. Do not compare it with the bounds 2 and 6, which are meant for the KS fit.
    """
    x = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if not np.isfinite(x).all() or (x < 0).any():
        raise InputError("expected finite values >= 0")
    x = x[x > 0]
    k = len(x) // 2 if k is None else k
    if not 1 <= k < len(x):
        raise ValueError(f"expected 1 <= k < n = {len(x)}, got k = {k}")
    spread = float(np.sum(np.log(x[-k:]) - np.log(x[-k - 1])))
    if spread == 0:
        raise InputError(f"the {k + 1} largest values are equal")
    return 1 + k / spread
