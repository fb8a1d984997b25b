"""How a parameter is read as matrices, and how matrices are put together again.

Shapes: b matrices, m rows, n columns; a parameter is a list of such stacks, its pieces.
"""

from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from htsr.errors import InputError

Layout = Literal["flatten", "stack", "transposed"]


class Reading(NamedTuple):
    """How a parameter is read as matrices.

    Attributes:
        layout: ``"flatten"``: one matrix (out, in * kernel), of a Linear or a convolution. ``"stack"``: the last two
            dimensions are (out, in), those before count matrices, as of experts. ``"transposed"``: (in, out), as in
            transformers' Conv1D.
        split: Rows of every matrix that belong together: a number of equal parts, or the size of each. Query, key and
            value in one matrix are 3, attention heads as many as there are.
        split_dim: 0 to split rows, 1 to split columns, e.g. the heads that an attention output reads.
    """

    layout: Layout = "flatten"
    split: int | tuple[int, ...] | None = None
    split_dim: int = 0

    def pieces(self, tensor: Tensor) -> list[Tensor]:
        """Stacks of matrices.

        Args:
            tensor: Of a parameter's shape.

        Returns:
            Stacks of shape (b, m, n), views where that is possible.
        """
        if self.layout == "stack":
            stack = tensor.reshape(-1, *tensor.shape[-2:])
        else:
            stack = tensor.reshape(1, len(tensor), -1)
        if self.layout == "transposed":
            stack = stack.mT
        if self.split is None:
            return [stack]
        if isinstance(self.split, int):
            parts = torch.stack(stack.chunk(self.split, self.split_dim + 1), 1)
            return [parts.flatten(0, 1)]
        return list(stack.split(list(self.split), self.split_dim + 1))

    def join(self, pieces: list[Tensor], shape: torch.Size) -> Tensor:
        """The inverse of ``pieces``.

        Args:
            pieces: As ``pieces`` returns them.
            shape: Of the parameter.

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
        """Shapes of the pieces of a parameter.

        Args:
            shape: Of the parameter.

        Returns:
            One (b, m, n) for each piece.
        """
        return list(_shapes(self, shape))

    def check(self, shape: torch.Size, label: str) -> None:
        """Refuse a reading that a parameter does not have.

        Args:
            shape: Of the parameter.
            label: What to call it.

        Raises:
            InputError: If the layout is unknown, needs more dimensions, or the split does not add up.
        """
        if self.layout not in get_args(Layout):
            raise InputError(f"expected layout to be one of {', '.join(get_args(Layout))}, got {self.layout!r}")
        if self.layout == "transposed" and len(shape) != 2:
            raise InputError(f"expected two dimensions for layout='transposed', got {label}")
        if self.split is None:
            return
        columns = shape[-1] if self.layout == "stack" else prod(shape[1:])
        rows = shape[-2] if self.layout == "stack" else shape[0]
        sides = (columns, rows) if self.layout == "transposed" else (rows, columns)
        if self.split_dim not in {0, 1}:
            raise InputError(f"expected split_dim 0 (rows) or 1 (columns), got {self.split_dim!r}")
        side = sides[self.split_dim]
        if isinstance(self.split, int):
            fits = self.split > 0 and side % self.split == 0
        else:
            fits = sum(self.split) == side and all(size > 0 for size in self.split)
        if not fits:
            what = "columns" if self.split_dim else "rows"
            raise InputError(f"expected a split that adds up to {side} {what}, got {self.split!r} for {label}")


@lru_cache(maxsize=4096)
def _shapes(reading: Reading, shape: torch.Size) -> tuple[torch.Size, ...]:
    return tuple(piece.shape for piece in reading.pieces(torch.empty(shape, device="meta")))
