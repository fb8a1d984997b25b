"""Weights that MLX quantised: integers of 2 to 8 bits, or 4- and 8-bit floats, packed into 32-bit words along the inputs.

The arithmetic is that of ``mlx.core.dequantize`` in its modes: ``affine`` is ``scale * integer + bias`` for each group of a row.
"""

from dataclasses import dataclass, field

import torch

from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import unpack
from htsr.weights.readers.quantised.groups import Group
from htsr.weights.readers.quantised.scales import PLAIN, Spread, spread

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)


def dequantise_mlx(group: Group) -> StoredTensor | str | None:
    """Return a weight that MLX quantised, or a reason if its group size is unknown; None if it is of another scheme."""
    main, parts = group.main, group.parts
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
