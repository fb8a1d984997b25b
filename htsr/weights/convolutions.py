"""Cut a convolution kernel into matrices: by group, by slice or unfolded."""

import itertools
import math
from typing import get_args

from htsr.choices import Conv
from htsr.weights.parts import Part


def check_conv(conv: str) -> None:
    """Raise ValueError unless ``conv`` names a known treatment of convolutions."""
    if conv not in get_args(Conv):
        raise ValueError(f"expected conv='pool', 'slices' or 'unfold', got {conv!r}")


def kernel_parts(kernel: Part, *, groups: int = 1, transposed: bool = False, conv: Conv = "pool") -> list[Part]:
    """Cut a kernel ``(out, in / groups, *positions)`` into the weights that are analysed, one or more for each group."""
    # A transposed kernel is stored (in, out / groups, *positions). If one side of every slice is a single channel (depthwise
    # convolutions, grey images), the slices would be vectors, so the whole kernel becomes one matrix (channels, positions).
    outer, inner, *positions = kernel.shape
    if inner == 1:
        return [kernel.reshape(outer, math.prod(positions))]
    if outer == 1:
        return [kernel.reshape(inner, math.prod(positions))]
    rows = outer // groups
    kernels = [kernel] if groups == 1 else [kernel.narrow(0, i * rows, rows, f"[{i}]") for i in range(groups)]
    if rows == 1:
        return [part.reshape(inner, math.prod(positions)) for part in kernels]
    if transposed:
        kernels = [part.permute((1, 0, *range(2, len(part.shape)))) for part in kernels]
    if conv == "unfold":
        return [part.reshape(part.shape[0], math.prod(part.shape[1:])) for part in kernels]
    if conv == "slices" and math.prod(positions) > 1:
        return [_slice(part, place) for part in kernels for place in itertools.product(*map(range, positions))]
    return kernels


def _slice(kernel: Part, place: tuple[int, ...]) -> Part:
    """Return the ``(out, in)`` matrix at one position of a kernel."""
    for index in place[:-1]:
        kernel = kernel.select(2, index)
    return kernel.select(2, place[-1], f"[{','.join(map(str, place))}]")
