"""Read an einsum equation as a matrix product: which axes of its weight are outputs and which are inputs."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class EinsumMatrix(NamedTuple):
    """How an operand of an einsum becomes a matrix, or a stack of matrices.

    Attributes:
        axes: The order of its axes: those of the stack, the outputs, the inputs.
        shape: The shape after that: ``(out, in)`` or ``(stack, out, in)``.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]


def einsum_matrix(equation: str, operand: int, shape: Sequence[int]) -> EinsumMatrix | None:
    """Return how one operand of an equation of two acts as a matrix; None if it does not."""
    # A letter that the weight shares with the other operand is summed over (an input) or kept (the stack); one that it shares
    # with the result alone is an output.
    left, arrow, result = equation.replace(" ", "").replace("...", "").partition("->")
    operands = left.split(",")
    if not arrow or len(operands) != 2:
        return None
    weight, other = operands[operand], operands[1 - operand]
    if len(weight) != len(shape) or len(set(weight)) != len(weight):
        return None
    stack = [axis for axis, letter in enumerate(weight) if letter in other and letter in result]
    outputs = [axis for axis, letter in enumerate(weight) if letter not in other and letter in result]
    inputs = [axis for axis, letter in enumerate(weight) if letter in other and letter not in result]
    if not outputs or not inputs or len(stack) + len(outputs) + len(inputs) != len(weight):
        return None
    sides = [math.prod(shape[axis] for axis in side) for side in (stack, outputs, inputs)]
    return EinsumMatrix((*stack, *outputs, *inputs), tuple(sides[1:] if not stack else sides))
