"""Multiply 8-bit weights by the scales stored beside them; skip other packed formats by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from htsr.weights.inventory import Listing, ReadRows, StoredTensor

# Suffixes of the scales of fp8 and int8 weights, with the factor of each. DeepSeek stores a scale for each block;
# compressed-tensors and FBGEMM for each row or for the whole weight; bitsandbytes for each row, to be divided by 127
# (bitsandbytes.functional.int8_vectorwise_dequant).
SCALES = {"_scale_inv": 1.0, "_scale": 1.0, "SCB": 1 / 127}
EIGHT_BITS = re.compile(r"float8_\w+|int8")
# Default block size, from weight_block_size in the config.json of DeepSeek-V3.
BLOCK = 128
# Last names of tensors that pack several weights into one integer, and the format that packs them so.
PACKED = {
    "qweight": "packed by GPTQ or AWQ",
    "weight_packed": "packed by compressed-tensors",
    "blocks": "packed as MXFP4",
}
# Last names of the tensors beside packed weights.
BESIDE_PACKED = ("scales", "qzeros", "g_idx", "weight_scale", "weight_shape", "weight_global_scale", "input_scale")
ADVICE = (
    "dequantise it first, for instance with gptqmodel.utils.model_dequant.dequantize_model(model_path, output_path)"
)


def multiply_scales(listing: Listing) -> Listing:
    """Return the listing with 8-bit weights multiplied by their scales; scales and packed weights get a reason."""
    by_key = {stored.key: stored for stored in listing.tensors}
    return replace(listing, tensors=[_judged(stored, by_key, listing.config) for stored in listing.tensors])


def _judged(stored: StoredTensor, by_key: Mapping[str, StoredTensor], config: Mapping[str, object]) -> StoredTensor:
    """Return a tensor as it should be read: scaled, skipped with a reason, or unchanged."""
    if stored.reason is not None or stored.role is not None or stored.quantised:
        return stored
    path, _, last = stored.key.rpartition(".")
    if last in PACKED and not stored.dtype.startswith(("float", "bfloat")):
        return replace(stored, reason=f"{PACKED[last]}: {ADVICE}")
    if f"{stored.key}.absmax" in by_key and stored.dtype == "uint8":
        return replace(stored, reason=f"packed in 4 bits by bitsandbytes: {ADVICE}")
    if stored.key.endswith("_blocks") and f"{stored.key.removesuffix('_blocks')}_scales" in by_key:
        return replace(stored, reason=f"{PACKED['blocks']}: {ADVICE}")
    if last in BESIDE_PACKED and any(f"{path}.{packed}".lstrip(".") in by_key for packed in PACKED):
        return replace(stored, reason="scales of a quantised weight")
    for suffix in SCALES:
        weight = by_key.get(f"{path}.weight" if suffix == "SCB" else stored.key.removesuffix(suffix))
        if stored.key.endswith(suffix) and weight is not None and EIGHT_BITS.fullmatch(weight.dtype):
            return replace(stored, reason="scales of a quantised weight")
    if EIGHT_BITS.fullmatch(stored.dtype) and len(stored.shape) == 2 and 0 not in stored.shape:
        for suffix, factor in SCALES.items():
            scale = by_key.get(f"{path}.SCB" if suffix == "SCB" else f"{stored.key}{suffix}")
            if scale is not None:
                return _scaled(stored, scale, factor, config)
    return stored


def _scaled(stored: StoredTensor, scale: StoredTensor, factor: float, config: Mapping[str, object]) -> StoredTensor:
    """Return an 8-bit weight that is multiplied by its scales when read, or skipped if they do not fit its shape."""
    settings = config.get("quantization_config")
    size = settings.get("weight_block_size") if isinstance(settings, Mapping) else None
    sides = size if isinstance(size, list) and len(size) == 2 else [None, None]
    shape = scale.shape if len(scale.shape) == 2 else (*scale.shape, 1) if scale.shape else (1, 1)
    blocks = (
        [_block(side, count, said) for side, count, said in zip(stored.shape, shape, sides, strict=True)]
        if len(shape) == 2
        else [None]
    )
    if None in blocks:
        return replace(stored, reason=f"its scales of shape {scale.shape} do not fit its shape {stored.shape}")
    read = _Scaled(stored.read, scale.read, tuple(blocks), factor)  # type: ignore[arg-type]
    return replace(stored, read=read, quantised=True, note=f"{stored.dtype}, multiplied by its scales")


def _block(side: int, count: int, said: object) -> int | None:
    """Return how many rows or columns share a scale; None if the number of scales does not fit."""
    if count in (1, side):
        return side // count
    for size in (said, BLOCK):
        if isinstance(size, int) and size > 0 and -(-side // size) == count:
            return size
    return side // count if count and side % count == 0 else None


@dataclass(frozen=True)
class _Scaled:
    """Reads an 8-bit weight times its scales, in float32."""

    read: ReadRows = field(repr=False)
    read_scale: ReadRows = field(repr=False)
    blocks: tuple[int, int]
    factor: float

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = self.read(None).to(torch.float32)
        scale = self.read_scale(None).to(torch.float32) * self.factor
        scale = scale.reshape(-1, 1) if scale.ndim < 2 else scale
        for dim, size in enumerate(self.blocks):
            scale = scale.repeat_interleave(size, dim).narrow(dim, 0, weight.shape[dim])
        weight = weight * scale
        return weight if rows is None else weight[rows]
