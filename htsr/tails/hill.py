"""The Hill estimator, and the "median" exponent that published code computes with it."""

import numpy as np
from numpy.typing import ArrayLike


def hill(eigenvalues: ArrayLike, k: int | None = None) -> float:
    """Hill's estimate of the exponent from the k largest values (Hill 1975).

    ``alpha = 1 + k / sum_{i=1..k} ln(x_(n-i+1) / x_(n-k))``, with ``x_(1) <= ... <= x_(n)``.

    Args:
        eigenvalues: Values >= 0, in any order; zeros are left out.
        k: How many values exceed the threshold; half of them by default.

    Returns:
        alpha.

    Raises:
        ValueError: If a value is negative or not finite, k is not between 1 and n - 1, or the k + 1 largest values are equal.

    Notes:
        This is the form of the papers (PL_Alpha_Hill with k = n/2). The code of TempBalance, AlphaPruning, AlphaDecay and
        FARMS keeps the threshold in the sum as a term of zero, which makes ``alpha - 1`` larger by ``(k + 1) / k``:
        ``fit_power_law(x, xmin="median")`` against ``xmin="median-paper"``.

        With k = n/2 the number mostly measures the aspect ratio: Gaussian noise gives 2.12, 2.71, 3.46 and 4.47 for
        Q = 1, 2, 4 and 8. Do not hold it against the bounds 2 and 6, which are for the KS fit.
    """
    x = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError("expected finite values >= 0")
    x = x[x > 0]
    k = len(x) // 2 if k is None else k
    if not 1 <= k < len(x):
        raise ValueError(f"expected 1 <= k < n = {len(x)}, got k = {k}")
    spread = float(np.sum(np.log(x[-k:]) - np.log(x[-k - 1])))
    if spread == 0:
        raise ValueError(f"the {k + 1} largest values are equal")
    return 1 + k / spread
