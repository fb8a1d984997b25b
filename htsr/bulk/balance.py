"""Balance a matrix: divide out the scales of its rows and columns, and bound its entries.

Noise need not be Gaussian with one variance. A matrix of independent entries of any law, times a scale for each row and each
column, becomes by this a matrix of independent bounded entries with rows and columns of equal norm. Shapes: n rows, m columns.
"""

import numpy as np

# Sinkhorn's steps. Each costs two passes over the entries, and the norms of dense matrices agree to 1 % after two.
STEPS = 3
# Entries beyond so many root mean squares are set to that bound, so that a law with heavy tails has none any more. Normal entries
# lose 1 % of what they say about a weak signal.
BOUND = 2.5


def balanced(W_nm: np.ndarray, *, bounded: bool = True) -> np.ndarray:
    """Return a balanced float32 copy: rows and columns have root mean square 1, and those of zeros alone are left out.

    With ``bounded`` the entries are bounded, too, and their mean is 0.
    """
    Y = np.array(W_nm, dtype=np.float32)
    for axis in (1, 0):  # no square over- or underflows
        Y = np.compress(np.abs(Y).max(axis, initial=0) > 0, Y, axis=1 - axis)
        Y /= np.abs(Y).max(axis, keepdims=True, initial=0)
    if not Y.size:
        return Y
    _equalise(Y)
    if bounded:
        for _ in range(2):
            Y -= Y.mean(dtype=np.float64).astype(np.float32)
            np.clip(Y, -BOUND, BOUND, out=Y)
            _equalise(Y)
    return Y


def _equalise(Y_nm: np.ndarray) -> None:
    """Scale rows and columns in place until the mean square of each is 1 (Sinkhorn and Knopp 1967)."""
    n, m = Y_nm.shape
    squares_nm = np.square(Y_nm)
    rows_n, columns_m = np.ones(n, np.float32), np.ones(m, np.float32)
    for _ in range(STEPS):
        rows_n = m / (squares_nm @ columns_m)
        columns_m = n / (rows_n @ squares_nm)
    Y_nm *= np.sqrt(rows_n)[:, None]
    Y_nm *= np.sqrt(columns_m)
