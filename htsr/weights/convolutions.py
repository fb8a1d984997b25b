"""The matrices of a convolution kernel: groups, transposed and depthwise kernels, slices."""

import itertools
import math
from typing import get_args

from htsr.choices import Conv
from htsr.weights.parts import Part


def check_conv(conv: str) -> None:
    """Refuse what is no treatment of convolutions."""
    if conv not in get_args(Conv):
        raise ValueError(f"expected conv='pool', 'slices' or 'unfold', got {conv!r}")


def kernel_parts(kernel: Part, *, groups: int = 1, transposed: bool = False, conv: Conv = "pool") -> list[Part]:
    """Cut a kernel into the weights that are analysed.

    Args:
        kernel: ``(out, in / groups, *positions)``; ``(in, out / groups, *positions)`` for a transposed convolution.
        groups: Each group is a convolution of its own and becomes a part of its own, ``[0]``, ``[1]``, ...
        transposed: Whether it is the kernel of a transposed convolution.
        conv: ``"pool"`` keeps a kernel whole: its slices, one ``(out, in)`` matrix for each position, are decomposed and
            their eigenvalues pooled. ``"slices"`` makes each slice a part, ``[0,2]``. ``"unfold"`` makes the kernel one
            matrix, ``(out, in * positions)``, which is what im2col multiplies with.

    Returns:
        The parts. Where one side of every slice is a single channel, as in depthwise convolutions and those of grey images,
        slices would be vectors: all of the kernel is then one matrix, ``(channels, positions)``, whatever ``conv`` says.
    """
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
    for index in place[:-1]:
        kernel = kernel.select(2, index)
    return kernel.select(2, place[-1], f"[{','.join(map(str, place))}]")
