"""Changes of few rows or columns, and of their order."""

from dataclasses import dataclass

import torch

# Rows or columns of one value say nothing by their order.
SHORTEST = 2
# A change is one of few rows, or columns, if no more than this share of them changed.
FEW = 0.5
# Values of each row that are looked at before all of them are: most changes move all rows.
FIRST = 16


@dataclass(frozen=True)
class Lines:
    """The rows or columns that changed.

    Attributes:
        axis: ``rows`` or ``columns``.
        changed: How many of them changed.
        of: How many there are.
        reordered: Whether those of B are those of A in another order.
    """

    axis: str
    changed: int
    of: int
    reordered: bool

    def __str__(self) -> str:
        return f"{self.changed} of {self.of} {self.axis}"


def lines_of(a: torch.Tensor, b: torch.Tensor, change: torch.Tensor) -> Lines | None:
    """Return the rows or columns that changed if they are few, or if only their order changed; None otherwise."""
    wide = torch.promote_types(a.dtype, b.dtype)
    found = []
    for axis, lines, A, B in (("rows", _moved(change), a, b), ("columns", _moved(change.mT), a.mT, b.mT)):
        count, of = int(lines.sum()), len(lines)
        if A.shape[1] >= SHORTEST and _are_reordered(A, B, lines, wide):
            return Lines(axis, count, of, True)
        if count <= FEW * of:
            found.append(Lines(axis, count, of, False))
    return min(found, key=lambda lines: lines.changed / lines.of, default=None)


def _moved(change: torch.Tensor) -> torch.Tensor:
    """Return which rows changed."""
    seen = (change[:, :FIRST] != 0).any(1)
    return seen if bool(seen.all()) else (change != 0).any(1)


def _are_reordered(a: torch.Tensor, b: torch.Tensor, lines: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether these rows of B are those of A in another order, value by value."""
    first_a, first_b = (matrix[lines, 0].to(dtype).sort().values for matrix in (a, b))
    if not torch.equal(first_a, first_b):  # most changes are seen here, before anything is copied
        return False
    a, b = (matrix[lines].to(dtype) for matrix in (a, b))
    weights = torch.randn(a.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(a.device)
    orders = [(matrix.to(torch.float64) * weights).sum(1).argsort(stable=True) for matrix in (a, b)]
    return torch.equal(a[orders[0]], b[orders[1]])
