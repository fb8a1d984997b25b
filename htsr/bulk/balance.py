"""Balance a matrix: divide out the scales of its rows and columns, and bound its entries.

Noise need not be Gaussian with one variance. A matrix of independent entries of any law, times a scale for each row and each
column, becomes by this a matrix of independent bounded entries with rows and columns of equal norm. Shapes: n rows, m columns.
"""

from dataclasses import dataclass

import numpy as np

# Sinkhorn's steps end when the mean squares of the rows are 1 up to a tolerance: after two or three of a dense matrix, after ten
# of one with a few entries in each row.
MAX_STEPS, TOLERANCE = 10, 3e-3
# A row or column of constants may vanish when the mean is taken away.
TINY = np.float32(1e-12)
# Entries beyond so many root mean squares are set to that bound, so that a law with heavy tails has none any more. Normal entries
# lose 1 % of what they say about a weak signal.
BOUND = 2.5
# The bound and the scales depend on each other; after two rounds they agree well enough.
ROUNDS = 2
# A mean square of 1 that lies in the mean to this share is not centred.
MAX_MEAN_SQUARE = 0.9


@dataclass(frozen=True, eq=False)
class Balanced:
    """A balanced matrix, and what was divided out.

    Attributes:
        Y_nm: float32; rows and columns have root mean square 1, and those of zeros alone are left out.
        log_rows_n: Logarithm of the scale of each row that is left.
        log_columns_m: Logarithm of the scale of each column that is left.
        bounded: Whether entries were bounded.
    """

    Y_nm: np.ndarray
    log_rows_n: np.ndarray
    log_columns_m: np.ndarray
    bounded: bool


def balanced(W_nm: np.ndarray, *, bounded: bool = True) -> Balanced:
    """Return the matrix balanced; with ``bounded`` its entries are bounded, and their mean is 0."""
    Y_nm, logs = W_nm, []
    for axis in (1, 0):  # largest entries of 1: no square over- or underflows
        largest = np.abs(Y_nm).max(axis, keepdims=True, initial=0)
        kept = largest.ravel() > 0
        Y_nm = np.compress(kept, Y_nm, axis=1 - axis) / np.compress(kept, largest, axis=1 - axis)
        Y_nm = Y_nm.astype(np.float32, copy=False)
        logs.append(np.log(largest.ravel()[kept].astype(np.float64)))
    if not Y_nm.size:
        return Balanced(Y_nm, logs[0], logs[1], bounded)
    for number in range(1 + ROUNDS * bounded):
        if number:
            np.clip(Y_nm, -BOUND, BOUND, out=Y_nm)
            mean = float(Y_nm.mean(dtype=np.float64))
            if mean**2 < MAX_MEAN_SQUARE:  # beyond it, one direction is nearly all there is
                Y_nm -= np.float32(mean)
        for log, factors in zip(logs, _equalise(Y_nm), strict=True):
            log -= np.log(factors)
    return Balanced(Y_nm, logs[0], logs[1], bounded)


def _equalise(Y_nm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiply rows and columns in place until the mean square of each is 1 (Sinkhorn and Knopp 1967); return the factors."""
    n, m = Y_nm.shape
    squares_nm = np.square(Y_nm)
    rows_n, columns_m = np.ones(n, np.float32), np.ones(m, np.float32)
    for _ in range(MAX_STEPS):
        before_n, rows_n = rows_n, m / np.maximum(squares_nm @ columns_m, TINY)
        columns_m = n / np.maximum(rows_n @ squares_nm, TINY)
        if np.abs(rows_n / before_n - 1).max() < TOLERANCE:
            break
    rows_n, columns_m = np.sqrt(rows_n), np.sqrt(columns_m)
    Y_nm *= rows_n[:, None]
    Y_nm *= columns_m
    return rows_n, columns_m
