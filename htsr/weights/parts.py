"""Describe a matrix inside a stored tensor by the steps that cut it out."""

import math
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Part:
    """A weight inside a stored tensor.

    Attributes:
        shape: Shape of the weight, after the steps.
        label: What the part adds to the name of the tensor: nothing for the whole tensor, otherwise ``[q]`` or ``[q][3]``.
        steps: Names and arguments of tensor methods, in the order in which ``cut`` calls them.

    Example:
        >>> tensor = torch.arange(12.0).reshape(6, 2)
        >>> second = Part(tuple(tensor.shape)).narrow(0, 2, 2, "[k]")
        >>> second
        Part(shape=(2, 2), label='[k]', steps=(('narrow', 0, 2, 2),))
        >>> second.cut(tensor)
        tensor([[4., 5.],
                [6., 7.]])
    """

    shape: tuple[int, ...]
    label: str = ""
    steps: tuple[tuple[object, ...], ...] = ()

    def narrow(self, dim: int, start: int, length: int, label: str = "") -> "Part":
        """Return the part that keeps ``length`` indices along a dimension."""
        shape = (*self.shape[:dim], length, *self.shape[dim + 1 :])
        return self._then(shape, label, "narrow", dim, start, length)

    def select(self, dim: int, index: int, label: str = "") -> "Part":
        """Return the part at one index of a dimension, without that dimension."""
        return self._then(self.shape[:dim] + self.shape[dim + 1 :], label, "select", dim, index)

    def permute(self, axes: tuple[int, ...]) -> "Part":
        """Return the part with its dimensions in another order."""
        if axes == tuple(range(len(self.shape))):
            return self
        return self._then(tuple(self.shape[axis] for axis in axes), "", "permute", axes)

    def reshape(self, *shape: int) -> "Part":
        """Return the part with the same elements in another shape."""
        assert math.prod(shape) == math.prod(self.shape)
        return self if shape == self.shape else self._then(shape, "", "reshape", shape)

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """Apply the steps to the stored tensor."""
        for name, *arguments in self.steps:
            tensor = getattr(tensor, str(name))(*arguments)
        return tensor

    def rows_first(self) -> tuple[slice | None, "Part"]:
        """Return the rows to read, None for all, and the part to cut out of those rows."""
        match self.steps:
            case (("narrow", 0, int(start), int(length)), *rest):
                return slice(start, start + length), replace(self, steps=tuple(rest))
            case (("select", 0, int(index)), *rest):
                return slice(index, index + 1), replace(self, steps=(("select", 0, 0), *rest))
        return None, self

    def _then(self, shape: tuple[int, ...], label: str, *step: object) -> "Part":
        """Return the part after one more step."""
        return Part(shape, self.label + label, (*self.steps, step))
