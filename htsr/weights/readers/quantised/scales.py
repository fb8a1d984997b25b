"""Spread scales and zero points over the elements of a weight that share them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from htsr.weights.inventory import ReadRows, StoredTensor

# Types of scales. uint8 holds the exponents of float8_e8m0fnu, from before torch had that type.
PLAIN = {"float16", "bfloat16", "float32", "float64"}
EXPONENTS = {"float8_e8m0fnu", "uint8"}


@dataclass(frozen=True)
class Spread:
    """Reads one value for each block of a weight, in float32 and spread over the elements of its block.

    Attributes:
        read: Reads the values.
        counts: Number of values along each dimension of the weight.
        blocks: Number of elements along each dimension that share a value.
        shape: Shape of the weight.
        exponents: Whether the values are bytes that stand for powers of two.
    """

    read: ReadRows = field(repr=False)
    counts: tuple[int, ...]
    blocks: tuple[int, ...]
    shape: tuple[int, ...]
    exponents: bool

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return the values for some rows of the weight, with size 1 along each dimension that has only one value."""
        own_rows = rows is not None and self.counts[0] == self.shape[0]
        values = self.read(rows if own_rows else None)
        values = values.view(torch.float8_e8m0fnu) if self.exponents and values.dtype == torch.uint8 else values
        values = values.to(torch.float32).reshape(-1, *self.counts[1:])
        for dim, (count, block, side) in enumerate(zip(self.counts, self.blocks, self.shape, strict=True)):
            if count > 1 and not (dim == 0 and own_rows):
                elements = torch.arange(side)[rows if dim == 0 and rows is not None else slice(None)]
                values = values.index_select(dim, elements // block)
        return values

    @property
    def by_group(self) -> int | None:
        """The number of elements along the last dimension that share a value, if each row has its own; otherwise None."""
        return self.blocks[-1] if self.counts[:-1] == self.shape[:-1] else None


def spread(stored: StoredTensor, shape: Sequence[int], sizes: Sequence[object] = ()) -> Spread | None:
    """Return how the values of a tensor spread over a weight of this shape; None if they do not fit it.

    ``sizes`` are sizes of blocks to try, in this order, before equal blocks.
    """
    if 0 in stored.shape or len(stored.shape) > len(shape):
        return None
    single = math.prod(stored.shape) == 1
    counts = (1,) * len(shape) if single else (*stored.shape, *(1,) * (len(shape) - len(stored.shape)))
    blocks = [_block(side, count, sizes) for side, count in zip(shape, counts, strict=True)]
    if None in blocks:
        return None
    exponents = stored.dtype in EXPONENTS
    return Spread(stored.read, counts, tuple(filter(None, blocks)), tuple(shape), exponents)


def read_of(stored: StoredTensor | None) -> ReadRows | None:
    """Return what reads a tensor that may be missing."""
    return None if stored is None else stored.read


def _block(side: int, count: int, sizes: Sequence[object]) -> int | None:
    """Return how many elements along a dimension share a value; None if the number of values does not fit."""
    if side == 0 or count in (1, side):
        return side // count or None
    for size in sizes:
        if isinstance(size, int) and size > 0 and -(-side // size) == count:
            return size
    return side // count if side % count == 0 else None
