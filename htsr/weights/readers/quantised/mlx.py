"""Weights that MLX quantised: integers of 2 to 8 bits, or 4- and 8-bit floats, packed into 32-bit words along the inputs.

The arithmetic is that of ``mlx.core.dequantize`` in its modes: ``affine`` is ``scale * integer + bias`` for each group of a row;
in the others, floats are multiplied by a power of two (``mxfp4``, ``mxfp8``) or by an 8-bit float (``nvfp4``).
"""

from dataclasses import dataclass, field, replace

import torch

from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import decode_pairs, unpack
from htsr.weights.readers.quantised.fp4 import E2M1
from htsr.weights.readers.quantised.groups import Group
from htsr.weights.readers.quantised.scales import PLAIN, Spread, spread

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
# Bits of an element, and elements of a group, of the modes of floats.
FLOATS = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}


def dequantise_mlx(group: Group) -> StoredTensor | str | None:
    """Return a weight that MLX quantised, or a reason if its group size is unknown; None if it is of another scheme."""
    main, parts = group.main, group.parts
    if group.has("weight", ("scales",)) and (main.dtype, parts["scales"].dtype) == ("uint32", "uint8"):
        return _floats(group) if len(main.shape) > 1 else None
    if not group.has("weight", ("scales", "biases")) or main.dtype != "uint32" or len(main.shape) < 2:
        return None
    scales, biases = parts["scales"], parts["biases"]
    if (
        scales.shape[:-1] != main.shape[:-1]
        or scales.shape != biases.shape
        or not {scales.dtype, biases.dtype} <= PLAIN
    ):
        return None
    words, groups = main.shape[-1], scales.shape[-1]
    fitting = [(bits, size) for bits in BITS for size in GROUP_SIZES if words * 32 == groups * size * bits and groups]
    said = (group.settings.get("bits"), group.settings.get("group_size"))
    if said in fitting:
        fitting = [found for found in fitting if found == said]
    elif said != (None, None):
        return f"quantised by MLX: its {words} words and {groups} groups in a row do not fit bits and group_size {said}"
    if len(fitting) != 1:
        return (
            f"quantised by MLX: its {words} words and {groups} groups in a row fit {len(fitting)} pairs of bits and group_size; "
            "expected a config.json beside it that says which"
        )
    ((bits, size),) = fitting
    shape = (*main.shape[:-1], groups * size)
    scale, bias = (spread(tensor, shape, (size,)) for tensor in (scales, biases))
    if scale is None or bias is None or scale.by_group != size:
        return None
    return group.dequantised(shape, _Affine(main.read, scale, bias, bits, shape[-1]), f"MLX, {bits} bits")


def _floats(group: Group) -> StoredTensor | str:
    """Return a weight of floats, or a reason if its scales do not fit one of the modes."""
    main, scales, said = group.main, group.parts["scales"], group.settings.get("mode")
    for mode, (bits, size) in FLOATS.items():
        shape = (*main.shape[:-1], main.shape[-1] * 32 // bits)
        if scales.shape != (*shape[:-1], shape[-1] // size) or said not in (None, mode):
            continue
        if mode == "nvfp4":
            scales = replace(scales, read=_AsFp8(scales.read), dtype="float8_e4m3fn")
        factors = spread(scales, shape, (size,))
        if factors is not None and factors.by_group == size:
            return group.dequantised(shape, _Floats(main.read, factors, bits), f"MLX, {mode}")
    return f"quantised by MLX: its scales of shape {scales.shape} beside {main.shape} do not fit the mode {said!r:.30}"


@dataclass(frozen=True)
class _AsFp8:
    """Reads 8-bit floats that are stored as bytes."""

    read: ReadRows = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        return self.read(rows).view(torch.float8_e4m3fn)


@dataclass(frozen=True)
class _Floats:
    """Reads a weight of 4- or 8-bit floats that MLX quantised."""

    read: ReadRows = field(repr=False)
    scales: Spread
    bits: int

    def __call__(self, rows: slice | None) -> torch.Tensor:
        stored = self.read(rows).contiguous().view(torch.uint8)
        if self.bits == 8:
            weight = stored.view(torch.float8_e4m3fn).to(torch.float32)
        else:
            weight = decode_pairs(stored, torch.tensor([*E2M1, *(-value for value in E2M1)]))
        return weight * self.scales(rows)


@dataclass(frozen=True)
class _Affine:
    """Reads a weight that MLX quantised."""

    read: ReadRows = field(repr=False)
    scales: Spread
    biases: Spread
    bits: int
    columns: int

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = unpack(self.read(rows), self.bits, self.columns).to(torch.float32)
        weight *= self.scales(rows)
        weight += self.biases(rows)
        return weight
