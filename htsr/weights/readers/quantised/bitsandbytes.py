"""Weights of bitsandbytes: 8-bit rows with their largest absolute value, and 4-bit codes with the one of each block.

The arithmetic is that of ``int8_vectorwise_dequant`` and ``dequantize_4bit`` in bitsandbytes/functional.py.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from htsr.errors import InputError
from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import decode_pairs
from htsr.weights.readers.quantised.groups import QUANT_STATE, Group
from htsr.weights.readers.quantised.scales import PLAIN, read_of

# The shape of a 4-bit weight stands in a tensor of JSON text. A text longer than this is none.
MAX_STATE = 65536
BLOCKS = {"weight_absmax", "weight_quant_map"}
NESTED = {"weight_nested_absmax", "weight_nested_quant_map"}


def dequantise_8bit(group: Group) -> StoredTensor | None:
    """Return an 8-bit weight of bitsandbytes; None if the group is of another scheme."""
    main = group.main
    if not group.has("weight", ("SCB",), ("weight_format",)) or main.dtype != "int8" or len(main.shape) != 2:
        return None
    row_max, layout = group.parts["SCB"], group.parts.get("weight_format")
    if row_max.shape not in ((main.shape[0],), (main.shape[0], 1)) or row_max.dtype not in PLAIN:
        return None
    read = _Rows(main.read, row_max.read, read_of(layout))
    return group.dequantised(main.shape, read, "int8 of bitsandbytes")


def dequantise_4bit(group: Group) -> StoredTensor | str | None:
    """Return a 4-bit weight of bitsandbytes, or a reason if its parts do not fit; None if the group is of another scheme."""
    main, parts = group.main, group.parts
    state_name = next(filter(QUANT_STATE.fullmatch, parts), None)
    if state_name is None or not group.has("weight", {*BLOCKS, state_name}, NESTED):
        return None
    state = _state(parts[state_name])
    if isinstance(state, str):
        return state
    absmax, codebook = parts["weight_absmax"], parts["weight_quant_map"]
    nested = [parts[name] for name in sorted(NESTED) if name in parts]
    blocks = -(-math.prod(state.shape) // state.block)
    bytes_each = 1 if main.dtype in ("uint8", "int8") else 4 if main.dtype == "float32" else 2
    fits = math.prod(main.shape) * bytes_each * 2 in (math.prod(state.shape), math.prod(state.shape) + 1)
    fits &= absmax.shape == (blocks,) and codebook.shape == (16,) and codebook.dtype in PLAIN
    fits &= main.dtype in ("uint8", "int8", "float16", "bfloat16", "float32")
    if nested:
        fits &= len(nested) == 2 and absmax.dtype == "uint8" and state.nested_block > 0
        fits = fits and nested[0].shape == (-(-blocks // state.nested_block),) and nested[1].shape == (256,)
    else:
        fits &= absmax.dtype in PLAIN
    if not fits:
        return f"4 bits of bitsandbytes: its tensors do not fit the shape {state.shape} and block size {state.block} it gives"
    read = _Blocks(main.read, absmax.read, codebook.read, tuple(tensor.read for tensor in nested), state)
    return group.dequantised(state.shape, read, f"{state_name.rpartition('_')[2]} of bitsandbytes")


@dataclass(frozen=True)
class _State:
    """What the JSON text of a 4-bit weight says."""

    shape: tuple[int, ...]
    block: int
    nested_block: int
    nested_offset: float


def _state(stored: StoredTensor) -> _State | str:
    """Read the JSON text of a 4-bit weight, or return a reason if it does not say what is needed."""
    # The shape of the weight stands nowhere else, so this short tensor is read while the source is listed.
    unreadable = f"4 bits of bitsandbytes: expected JSON text with shape and blocksize in {stored.key}"
    if math.prod(stored.shape) > MAX_STATE or stored.dtype != "uint8":
        return unreadable
    try:
        said = json.loads(bytes(stored.read(None).flatten().tolist()).decode())
    except Exception as err:  # whatever the reader of the source raises concerns this weight only
        return f"{unreadable}, got {type(err).__name__}: {err}"
    if not isinstance(said, Mapping):
        return unreadable
    shape, block, offset = said.get("shape"), said.get("blocksize"), said.get("nested_offset", 0.0)
    nested_block = said.get("nested_blocksize", 0)
    sizes = [*shape, block] if isinstance(shape, list) and shape else [0]
    if any(type(size) is not int or not 0 < size < 2**48 for size in sizes):
        return unreadable
    if type(nested_block) is not int or not isinstance(offset, float | int) or not abs(offset) < 1e30:
        return unreadable
    return _State(tuple(sizes[:-1]), sizes[-1], nested_block, float(offset))


@dataclass(frozen=True)
class _Rows:
    """Reads an 8-bit weight."""

    read: ReadRows = field(repr=False)
    read_max: ReadRows = field(repr=False)
    read_layout: ReadRows | None = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        layout = 0 if self.read_layout is None else int(self.read_layout(None))
        if layout != 0:
            raise InputError(f"an int8 weight of bitsandbytes in the layout {layout}: expected 0, row by row")
        row_max = self.read_max(rows).to(torch.float32).reshape(-1, 1)
        return self.read(rows).to(torch.float32) * (row_max * (1 / 127))


@dataclass(frozen=True)
class _Blocks:
    """Reads a 4-bit weight."""

    read: ReadRows = field(repr=False)
    read_max: ReadRows = field(repr=False)
    read_codebook: ReadRows = field(repr=False)
    read_nested: tuple[ReadRows, ...] = field(repr=False)
    state: _State

    def __call__(self, rows: slice | None) -> torch.Tensor:
        absmax, size = self.read_max(None), math.prod(self.state.shape)
        if self.read_nested:
            nested_max, codebook = (read(None).to(torch.float32) for read in self.read_nested)
            spread = nested_max.repeat_interleave(self.state.nested_block)[: len(absmax)]
            absmax = codebook[absmax.long()] * spread + self.state.nested_offset
        packed = self.read(None).contiguous().view(torch.uint8).flatten()
        weight = decode_pairs(packed, self.read_codebook(None).to(torch.float32), high_first=True)[:size]
        weight *= absmax.to(torch.float32).repeat_interleave(self.state.block)[:size]
        weight = weight.reshape(self.state.shape)
        return weight if rows is None else weight[rows]
