"""Whole numbers that add up: the method of the largest remainders."""

import numpy as np
from numpy.typing import ArrayLike


def largest_remainders(shares: ArrayLike, total: int, *, least: int = 0) -> np.ndarray:
    """Split a whole number in proportion to shares.

    Each part first gets the whole part of its quota; what is left goes, one by one, to the largest remainders (Hamilton's
    method), the first of equal ones first.

    Args:
        shares: Numbers >= 0, at least one of them positive.
        total: The sum of the parts.
        least: What every part gets at least; the others then share what is left.

    Returns:
        Whole numbers that add up to ``total``.

    Raises:
        ValueError: If the total is too small for ``least``, or the shares are negative or all zero.

    Example:
        >>> largest_remainders([1, 1, 2], 10)
        array([3, 2, 5])
    """
    weights = np.asarray(shares, dtype=np.float64)
    if not ((weights >= 0).all() and np.isfinite(weights).all() and weights.sum() > 0):
        raise ValueError(f"expected finite shares >= 0 with a positive sum, got {weights}")
    spare = total - least * len(weights)
    if spare < 0:
        raise ValueError(f"expected a total of at least {least} for each of {len(weights)} parts, got {total}")
    above = np.maximum(total * weights / weights.sum() - least, 0)
    quotas = spare * above / above.sum() if spare else np.zeros(len(weights))
    parts = np.floor(quotas + 1e-9).astype(np.int64)  # a quota of 3 may be computed as 2.9999999999999996
    order = np.argsort(parts - quotas, kind="stable")
    parts[order[: spare - int(parts.sum())]] += 1
    return parts + least
