"""Quantisation: neighbouring values of one matrix take few distinct values and keep the order that they have in the other."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from htsr.comparison.survey.differences import BLOCK as NEIGHBOURS
from htsr.comparison.survey.differences import MAX_BLOCKS as MOST
from htsr.comparison.survey.differences import REVERSED, reversed_share

# Neighbours whose distinct values are counted, so that the scale of a group of 32 still repeats, and how many such blocks.
BLOCK, MAX_BLOCKS = 64, 256
# Values repeat within a block because a grid has few levels. One of two matrices lies on a grid if so large a share of its values
# repeats, and so many times the share of the other one. Of normal values, an 8-bit grid repeats a quarter if it belongs to a row,
# 8 % if to 32 values, and bfloat16 1.5 %.
REPEATED, TIMES = 0.04, 3.0
# Where 8 bits belong to 16 values, few repeat, and where both matrices are stored in bfloat16, values of both do: MORE times as
# many are enough, or errors with a uniform distribution (a kurtosis of 1.8; it is 1 if all have one size, 3 if they are normal).
# But then the order must be kept better, where an independent change would break it BROKEN times.
MORE = 1.4
UNIFORM, UNIFORM_OF, BROKEN, KEPT = (1.5, 2.1), 2**14, 10.0, 0.1
# A change that rounding to levels makes is no larger than this, relative to the matrix: a normal matrix on 3 levels.
LARGEST_CHANGE = 0.8
MAX_VALUES = NEIGHBOURS * MOST


@dataclass(frozen=True)
class Grid:
    """How one of two matrices differs from the other as quantisation makes it.

    Attributes:
        repeated: Share of its values that repeat within 64 neighbours.
        reversed: Share of pairs of neighbours whose order differs.
        in_a: Whether A is the quantised one.
    """

    repeated: float
    reversed: float
    in_a: bool


def grid_of(a: torch.Tensor, b: torch.Tensor, relative_change: float) -> Grid | None:
    """Return how one of two matrices quantises the other, or None."""
    if not 0 < relative_change < LARGEST_CHANGE:
        return None
    for first, second in ((a, b), (a.mT, b.mT)):  # a scale may belong to a row, a column or a part of either
        repeated_a, repeated_b = _repeated(first), _repeated(second)
        more, less = max(repeated_a, repeated_b), min(repeated_a, repeated_b)
        on_levels = more >= REPEATED and more >= TIMES * less
        if on_levels or more >= MORE * less > 0 or _uniform(first, second):
            out_of_order, independent = reversed_share(first, second), math.atan(relative_change) / math.pi
            pairs = min(a.numel(), MAX_VALUES) * (NEIGHBOURS - 1) / 2
            kept = REVERSED if on_levels else KEPT * (pairs * independent >= BROKEN)
            if out_of_order <= kept * independent:
                return Grid(more, out_of_order, repeated_a > repeated_b)
    return None


def _uniform(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether the differences of neighbours are distributed uniformly."""
    columns = a.shape[1]
    usable = columns - columns % NEIGHBOURS
    if not usable:
        return False
    step = -(-a.numel() // UNIFORM_OF)
    apart = (b[::step, :usable].double() - a[::step, :usable].double()).reshape(-1, NEIGHBOURS)
    squares = apart.square()
    second = squares.mean(1)
    moved = second > 0
    if not bool(moved.any()):
        return False
    kurtosis = float((squares[moved].square().mean(1) / second[moved].square()).mean())
    return UNIFORM[0] <= kurtosis <= UNIFORM[1]


def _repeated(matrix: torch.Tensor) -> float:
    """Return the share of values, in blocks of neighbours in a row, that are equal to another one; zeros are left out."""
    rows, columns = matrix.shape
    block = min(BLOCK, columns)
    per_row = columns // block
    chosen = torch.from_numpy(np.linspace(0, rows * per_row - 1, min(MAX_BLOCKS, rows * per_row)).astype(np.int64))
    blocks = matrix[:, : per_row * block].unflatten(1, (per_row, block))[chosen // per_row, chosen % per_row]
    narrow = blocks.dtype.itemsize < 4  # numpy, which sorts ten times as fast as torch, lacks some of these types
    values = np.sort((blocks.float() if narrow else blocks).detach().cpu().numpy(), axis=1)
    same = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] != 0)  # zeros may be pruned, or padding
    return int(np.count_nonzero(same)) / max(int(np.count_nonzero(values)), 1)
