"""How a parameter is read as matrices, and how matrices are put together again.

Shapes: b matrices, m rows, n columns; a parameter is a list of such stacks, its pieces.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from htsr.optim.settings import READING, Layout, check_settings


class Reading(NamedTuple):
    """How a parameter is read as matrices.

    Attributes:
        layout: ``"flatten"`` reads one matrix (out, in * kernel), as of a Linear or a convolution. ``"stack"`` reads
            the last two dimensions as (out, in) and those before as a count of matrices, such as experts.
            ``"transposed"`` reads (in, out), as in transformers' Conv1D.
        split: Rows that are updated on their own: a number of equal parts, or the size of each part. Query, key and
            value in one matrix are 3 parts; attention heads are as many parts as there are heads.
        split_dim: 0 to split rows, 1 to split columns, such as those of an attention output that read one head each.
    """

    layout: Layout = "flatten"
    split: int | tuple[int, ...] | None = None
    split_dim: int = 0

    def pieces(self, tensor: Tensor) -> list[Tensor]:
        """Read a tensor as stacks of matrices.

        Args:
            tensor: A tensor with the shape of the parameter.

        Returns:
            Stacks of shape (b, m, n), views where that is possible.
        """
        if self.layout == "stack":
            stack = tensor.reshape(prod(tensor.shape[:-2]), *tensor.shape[-2:])
        else:
            stack = tensor.reshape(1, len(tensor), prod(tensor.shape[1:]))
        if self.layout == "transposed":
            stack = stack.mT
        if self.split is None:
            return [stack]
        if isinstance(self.split, int):
            parts = torch.stack(stack.chunk(self.split, self.split_dim + 1), 1)
            return [parts.flatten(0, 1)]
        return list(stack.split(list(self.split), self.split_dim + 1))

    def join(self, pieces: list[Tensor], shape: torch.Size) -> Tensor:
        """Put pieces together again: the inverse of ``pieces``.

        Args:
            pieces: Stacks as ``pieces`` returns them.
            shape: The shape of the parameter.

        Returns:
            A tensor of that shape.
        """
        if isinstance(self.split, int):
            parts = pieces[0].unflatten(0, (-1, self.split)).unbind(1)
        else:
            parts = tuple(pieces)
        stack = torch.cat(parts, self.split_dim + 1) if len(parts) > 1 else parts[0]
        return (stack.mT if self.layout == "transposed" else stack).reshape(shape)

    def shapes(self, shape: torch.Size) -> list[torch.Size]:
        """Return the shape (b, m, n) of each piece of a parameter.

        Args:
            shape: The shape of the parameter.

        Returns:
            One shape a piece.
        """
        return list(_shapes(self, shape))

    def check(self, shape: torch.Size, label: str) -> None:
        """Refuse a parameter that cannot be read in this way.

        Args:
            shape: The shape of the parameter.
            label: What the message calls the parameter.

        Raises:
            TypeError: If a field has the wrong type.
            ValueError: If the layout is unknown or needs other dimensions, or if the split does not add up.
        """
        check_settings(self._asdict())
        if self.layout == "transposed" and len(shape) != 2:
            raise ValueError(f"expected two dimensions for layout='transposed', got {label}")
        if self.split is None:
            return
        columns = shape[-1] if self.layout == "stack" else prod(shape[1:])
        rows = shape[-2] if self.layout == "stack" else shape[0]
        sides = (columns, rows) if self.layout == "transposed" else (rows, columns)
        side = sides[self.split_dim]
        if isinstance(self.split, int):
            fits = self.split > 0 and side % self.split == 0
        else:
            fits = sum(self.split) == side and all(size > 0 for size in self.split)
        if not fits:
            what = "columns" if self.split_dim else "rows"
            raise ValueError(f"expected a split that adds up to {side} {what}, got {self.split!r} for {label}")


def reading_of(group: Mapping[str, Any]) -> Reading:
    """Return how the parameters of a group are read as matrices."""
    fields = {name: group[name] for name in READING}
    if isinstance(fields["split"], list):  # JSON has no tuples
        fields["split"] = tuple(fields["split"])
    return Reading(**fields)


@lru_cache(maxsize=4096)
def _shapes(reading: Reading, shape: torch.Size) -> tuple[torch.Size, ...]:
    return tuple(piece.shape for piece in reading.pieces(torch.empty(shape, device="meta")))
