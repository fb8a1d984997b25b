"""The format ``pack-quantized`` of compressed-tensors: integers of 1 to 8 bits, packed along the inputs.

The arithmetic is that of ``PackedQuantizationCompressor.decompress`` in compressed_tensors/compressors/pack_quantized.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from htsr.errors import InputError
from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import unpack
from htsr.weights.readers.quantised.groups import Group
from htsr.weights.readers.quantised.scales import PLAIN, read_of, spread

OPTIONAL = ("weight_zero_point", "weight_g_idx")
INTEGERS = ("int32", "int64")


def dequantise_packed(group: Group) -> StoredTensor | str | None:
    """Return a weight that compressed-tensors packed, or a reason if its parts do not fit; None if it is of another scheme."""
    main, parts = group.main, group.parts
    if not group.has("weight_packed", ("weight_scale", "weight_shape"), OPTIONAL) or main.dtype != "int32":
        return None
    shape = _true_shape(parts["weight_shape"])
    if isinstance(shape, str):
        return shape
    if len(shape) != len(main.shape) or len(shape) not in (2, 3) or shape[:-1] != main.shape[:-1]:
        return f"packed as {main.shape} by compressed-tensors, which does not fit the shape {shape} it gives"
    fitting = [bits for bits in range(1, 9) if -(-shape[-1] * bits // 32) == main.shape[-1]]
    said = [bits for bits in _said_bits(group.settings) if bits in fitting]
    if len(set(said or fitting)) != 1:
        return f"packed as {main.shape} by compressed-tensors: {len(fitting)} numbers of bits fit its shape {shape}"
    bits = (said or fitting)[0]
    scale, zero, index = parts["weight_scale"], parts.get("weight_zero_point"), parts.get("weight_g_idx")
    counts = (*scale.shape, *(1,) * (len(shape) - len(scale.shape)))
    if spread(scale, shape) is None or scale.dtype not in PLAIN:
        return f"its scales {scale.key} of shape {scale.shape} do not fit its shape {shape}"
    if zero is not None and (
        zero.dtype != "int32"
        or zero.shape != (*shape[:-2], -(-shape[-2] * bits // 32), counts[-1])
        or counts[-2] != shape[-2]
    ):
        return f"its zero points {zero.key} of shape {zero.shape} do not fit its scales of shape {scale.shape}"
    if index is not None and (index.shape != shape[-1:] or index.dtype not in INTEGERS or counts[-2] != shape[-2]):
        return f"its group indices {index.key} of shape {index.shape} do not fit its shape {shape}"
    read = _Packed(main.read, scale.read, read_of(zero), read_of(index), shape, counts, bits)
    return group.dequantised(shape, read, f"compressed-tensors, {bits} bits")


def _true_shape(stored: StoredTensor) -> tuple[int, ...] | str:
    """Read the shape of a packed weight, or return a reason if it is none."""
    # The number of inputs stands nowhere else, so these few numbers are read while the source is listed.
    if stored.dtype not in INTEGERS or len(stored.shape) != 1 or stored.shape[0] > 3:
        return f"packed by compressed-tensors: expected the shape of the weight in {stored.key}"
    try:
        shape = tuple(stored.read(None).tolist())
    except Exception as err:  # whatever the reader of the source raises concerns this weight only
        return f"packed by compressed-tensors: {stored.key} cannot be read: {type(err).__name__}: {err}"
    return (
        shape if all(side > 0 for side in shape) else f"packed by compressed-tensors with the impossible shape {shape}"
    )


def _said_bits(settings: Mapping[str, object]) -> Iterator[int]:
    """Yield the numbers of bits in the ``config_groups`` of the settings."""
    groups = settings.get("config_groups")
    for entry in groups.values() if isinstance(groups, Mapping) else ():
        weights = entry.get("weights") if isinstance(entry, Mapping) else None
        bits = weights.get("num_bits") if isinstance(weights, Mapping) else None
        if isinstance(bits, int):
            yield bits


@dataclass(frozen=True)
class _Packed:
    """Reads a weight that compressed-tensors packed."""

    read: ReadRows = field(repr=False)
    read_scales: ReadRows = field(repr=False)
    read_zeros: ReadRows | None = field(repr=False)
    read_index: ReadRows | None = field(repr=False)
    shape: tuple[int, ...]
    counts: tuple[int, ...]
    bits: int

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = unpack(self.read(rows), self.bits, self.shape[-1]).to(torch.float32)
        middle = 2 ** (self.bits - 1)
        scales = self._rows(self.read_scales, rows, self.counts[0]).to(torch.float32)
        scales = scales.reshape(-1, *self.counts[1:])
        column = self._groups()
        if self.read_zeros is None:
            weight -= middle
        else:
            # packed along the outputs, which are rows of a matrix but not of a stack
            own_rows = rows if len(self.shape) > 2 else None
            words = self._rows(self.read_zeros, own_rows, self.shape[0] if len(self.shape) > 2 else 0).transpose(-1, -2)
            zeros = unpack(words.contiguous(), self.bits, self.shape[-2]).transpose(-1, -2)
            zeros = zeros if rows is None or own_rows is not None else zeros[rows]
            weight -= zeros.to(torch.float32)[..., column]
        if math.prod(self.counts) == 1:
            return weight * scales
        if self.counts[-2] not in (1, self.shape[-2]):  # blocks of rows
            size = -(-self.shape[-2] // self.counts[-2])
            scales = scales.repeat_interleave(size, -2)
            scales = scales[rows] if rows is not None and len(self.shape) == 2 else scales
        weight *= scales[..., column]
        return weight

    def _rows(self, read: ReadRows, rows: slice | None, count: int) -> torch.Tensor:
        """Read some rows, or all if there are fewer than the weight has."""
        return read(rows if count == self.shape[0] else None)

    def _groups(self) -> torch.Tensor:
        """Return the group of each input."""
        groups, inputs = self.counts[-1], self.shape[-1]
        if self.read_index is None:
            return torch.arange(inputs) // -(-inputs // groups)
        index = self.read_index(None).long()
        if int(index.min()) < 0 or int(index.max()) >= groups:
            raise InputError(
                f"the group indices lie in [{int(index.min())}, {int(index.max())}]: expected 0 to {groups - 1}"
            )
        return index
