"""Rescaling: one matrix is the other one times a number, or a number for each row or column."""

from dataclasses import dataclass

import torch

# A row or column of fewer values is no evidence: a number for each explains much of any change.
SHORTEST = 8
# A rescaling leaves no more than this share of the energy of the change.
LEFT = 1e-3
# Where rounding errors are larger than that, it still explains this much of the change.
MOST = 0.9
# Rows that are looked at before all of them are, and how much more such a part may leave than the whole matrix.
SAMPLE, PATIENCE = 64, 10.0
# Rows that are multiplied at a time.
BLOCK = 512


@dataclass(frozen=True)
class Scaling:
    """How one matrix is the other one rescaled.

    Attributes:
        by: ``one factor``, ``a factor for each row`` or ``a factor for each column``.
        low: The least factor.
        high: The largest one.
    """

    by: str
    low: float
    high: float


def scaling_of(a: torch.Tensor, b: torch.Tensor, change: float, noise: float) -> Scaling | None:
    """Return how B is A rescaled, or None; ``change`` is the energy of B - A, and rounding errors have an energy of ``noise``."""
    some = slice(None, None, -(-len(a) // SAMPLE))
    if len(a[some]) < len(a):  # a part of the matrix is rescaled if all of it is
        of_some = float((b[some].double() - a[some].double()).square().sum())
        if of_some and not _scaling(a[some], b[some], of_some, PATIENCE * noise * len(a[some]) / len(a), PATIENCE):
            return None
    return _scaling(a, b, change, noise)


def _scaling(a: torch.Tensor, b: torch.Tensor, change: float, noise: float, patience: float = 1.0) -> Scaling | None:
    """Return how B is A rescaled, if it leaves no more than ``patience`` times what ``LEFT`` allows."""
    rows, columns = [], torch.zeros(3, a.shape[1], dtype=torch.float64, device=a.device)
    for block_a, block_b in zip(a.split(BLOCK), b.split(BLOCK), strict=True):
        block_a, block_b = block_a.to(torch.float64), block_b.to(torch.float64)
        products = torch.stack((block_a * block_a, block_a * block_b, block_b * block_b))
        rows.append(products.sum(2))
        columns += products.sum(1)
    of_rows = torch.cat(rows, 1)
    candidates = [("one factor", columns.sum(1, keepdim=True))]
    if min(a.shape) >= SHORTEST:
        candidates += [("a factor for each row", of_rows), ("a factor for each column", columns)]
    for by, (aa, ab, bb) in candidates:
        known = aa > 0
        factors = ab[known] / aa[known]
        left = float((bb[known] - factors * ab[known]).sum() + bb[~known].sum())
        allowed = max(patience * LEFT * change, 2 * noise)
        if len(factors) and left <= allowed and change - left >= MOST / patience * change:
            return Scaling(by, float(factors.min()), float(factors.max()))
    return None
