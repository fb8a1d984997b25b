"""List the weights of a GGUF file; the gguf package of llama.cpp dequantises them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, ReadRows, StoredTensor
from htsr.weights.metadata import bounded_metadata
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.optional import import_optional

KIND = "GGUF file"
PLAIN = {"F32": "float32", "F16": "float16", "F64": "float64", "BF16": "bfloat16"}
INTEGERS = {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}


def read_gguf(path: Path, files: Sequence[Path]) -> Listing:
    """List the tensors of a GGUF file, or of all parts of a split one, with their sides as (out, in)."""
    gguf = import_optional("gguf", "gguf", path)
    tensors: list[StoredTensor] = []
    config: dict[str, object] = {}
    for file in files:
        try:
            own, fields = _tensors(gguf, file)
        except Exception as err:  # gguf checks little, so damage can raise anything
            raise unreadable_file(file, KIND, err) from err
        tensors += own
        config = config or fields
    general = {key.removeprefix("general."): value for key, value in config.items() if key.startswith("general.")}
    return Listing(str(path), _with_scales(tensors), config, metadata=bounded_metadata(general))


def _tensors(gguf: Any, path: Path) -> tuple[list[StoredTensor], dict[str, object]]:
    """Return the tensors of one file in its order, and the short fields of its header."""
    reader = _bounded_reader(gguf)(path)
    config = {
        name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1 and len(field.parts) < 8
    }
    tensors = []
    for tensor in reader.tensors:
        kind = tensor.tensor_type
        shape = tuple(int(side) for side in reversed(tensor.shape))
        plain = PLAIN.get(kind.name) or INTEGERS.get(kind.name)
        reason = None
        if plain is None and kind not in gguf.quants._type_traits:  # the package has no other list of what it knows
            reason = f"the gguf package cannot dequantise {kind.name}: requantise it to another type with llama.cpp"
        rows = (*shape[:-1], int(tensor.n_bytes) // max(int(np.prod(shape[:-1], dtype=object)), 1))
        tensors.append(
            StoredTensor(
                key=str(tensor.name),
                shape=shape,
                dtype=plain or kind.name,
                read=partial(_read, path, int(tensor.data_offset), rows, int(kind)),
                quantised=plain is None,
                reason=reason,
                note="" if plain else f"dequantised from {kind.name}",
            )
        )
    return tensors, config


def _with_scales(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Return the tensors with each weight times the scale beside it, which llama.cpp applies to the outputs of the layer."""
    # NVFP4 has one for each weight or expert, BitNet one for each weight: blk.0.ffn_up.scale, or that of an activation,
    # blk.0.ffn_up.input_scale.
    by_key = {stored.key: stored for stored in tensors}
    found = []
    for stored in tensors:
        module, _, end = stored.key.rpartition(".")
        weight, scale = by_key.get(f"{module}.weight"), by_key.get(f"{module}.scale")
        if weight is not None and end in ("scale", "input_scale") and _fits(by_key[stored.key], weight):
            stored = replace(stored, reason=f"part of the quantised weight {weight.key}", num_params=0)
        elif stored is weight and scale is not None and _fits(scale, weight):
            read = _Scaled(stored.read, scale.read, stored.shape)
            note = f"{stored.note}, " if stored.note else ""
            stored = replace(stored, read=read, note=f"{note}multiplied by its scale", quantised=True)
        found.append(stored)
    return found


def _fits(scale: StoredTensor, weight: StoredTensor) -> bool:
    """Return whether a tensor holds one number for a weight, or one for each expert of a stack."""
    return scale.shape == (1,) or (len(weight.shape) == 3 and scale.shape == weight.shape[:1])


@dataclass(frozen=True)
class _Scaled:
    """Reads a weight times its scale."""

    read: ReadRows = field(repr=False)
    read_scale: ReadRows = field(repr=False)
    shape: tuple[int, ...]

    def __call__(self, rows: slice | None) -> torch.Tensor:
        scale = self.read_scale(None).to(torch.float32)
        scale = scale if len(scale) == 1 or rows is None else scale[rows]
        return self.read(rows).to(torch.float32) * scale.reshape(-1, *(1,) * (len(self.shape) - 1))


def _bounded_reader(gguf: Any) -> Any:
    """Return a subclass of gguf's reader that stops at the end of the file and skips arrays."""

    class Reader(gguf.GGUFReader):
        """A reader that a lying header cannot keep busy: gguf's own reads on past the end of the file."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any) -> Any:
            """Read values, but only inside the file."""
            end = int(offset) + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"the file ends before byte {end:,}")
            return super()._get(offset, dtype, count, *args, **kwargs)

        def _get_field_parts(self, offset: int, kind: int) -> Any:
            """Read a field, but only step over an array."""
            if kind != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(offset, kind)
            inner, count = self._get(offset, np.uint32), self._get(offset + 4, np.uint64)
            end, left = offset + 12, int(count[0])
            scalar = self.gguf_scalar_to_np.get(gguf.GGUFValueType(inner[0]))
            if scalar is not None:
                end += left * np.dtype(scalar).itemsize
            elif left * 8 > len(self.data) - end:
                raise ValueError(f"an array of {left:,} is longer than the file")
            elif inner[0] == gguf.GGUFValueType.STRING:  # a vocabulary, which is not needed here
                for _ in range(left):
                    end += 8 + int.from_bytes(self.data[end : end + 8].tobytes(), "little")
            else:
                for _ in range(left):
                    end += self._get_field_parts(end, int(inner[0]))[0]
            return end - offset, [inner, count], [], [gguf.GGUFValueType.ARRAY]

    return Reader


def _read(path: Path, offset: int, shape: tuple[int, ...], kind: int, rows: slice | None) -> torch.Tensor:
    """Return a tensor, or some of its rows, dequantised if it is quantised."""
    gguf = import_optional("gguf", "gguf", path)
    blocks: np.ndarray = np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)
    blocks = np.ascontiguousarray(blocks if rows is None else blocks[rows])
    quantised = gguf.GGMLQuantizationType(kind)
    if quantised.name in PLAIN:
        return torch.from_numpy(np.array(blocks)).view(getattr(torch, PLAIN[quantised.name]))
    return as_tensor(gguf.dequantize(blocks, quantised))
