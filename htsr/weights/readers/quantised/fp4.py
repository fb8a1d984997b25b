"""4-bit floats (E2M1), two in a byte, times scales for each group of a row: MXFP4 and NVFP4.

MXFP4 (OCP Microscaling Formats 1.0, section 5.3) has a power of two for each 32 elements; NVFP4 an fp8 scale for each 16 and one
more for the whole tensor, by which ModelOpt multiplies and compressed-tensors divides.
"""

from dataclasses import dataclass, field

import torch

from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import decode_pairs
from htsr.weights.readers.quantised.groups import Group
from htsr.weights.readers.quantised.scales import EXPONENTS, PLAIN, Spread, spread

# Values of the codes 0 to 7; the codes 8 to 15 are their negatives.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MX_GROUP, NV_GROUP = 32, 16


def dequantise_fp4(group: Group) -> StoredTensor | None:
    """Return an MXFP4 or NVFP4 weight; None if the group is of another scheme."""
    main, parts = group.main, group.parts
    if main.dtype not in ("uint8", "int8") or len(main.shape) < 2:
        return None
    blocks = group.has("blocks", ("scales",)) and len(main.shape) > 2 and main.shape[-1] == MX_GROUP // 2
    packed = (*main.shape[:-2], main.shape[-2] * main.shape[-1]) if blocks else main.shape
    shape = (*packed[:-1], packed[-1] * 2)
    if blocks or group.has(("weight", "weight_packed", "packed"), ("weight_scale",)) or group.has("weight", ("scale",)):
        scale = next(iter(parts.values()))
        # DeepSeek-V4 stores experts as int8 and may store their scales as float32, which would fit int8 weights as well
        said = group.settings.get("expert_dtype") == "fp4" and main.dtype == "int8" and scale.dtype in PLAIN
        return _grouped(group, shape, scale, None, "MXFP4", MX_GROUP) if scale.dtype in EXPONENTS or said else None
    for name, needed in (("weight", "weight_scale_2"), ("weight_packed", "weight_global_scale")):
        if group.has(name, ("weight_scale", needed)) and parts["weight_scale"].dtype == "float8_e4m3fn":
            return _grouped(group, shape, parts["weight_scale"], parts[needed], "NVFP4", NV_GROUP)
    return None


def _grouped(
    group: Group, shape: tuple[int, ...], scale: StoredTensor, overall: StoredTensor | None, how: str, size: int
) -> StoredTensor | None:
    """Return a weight of 4-bit floats; None if its scales are not one for each group of this size."""
    scales = spread(scale, shape, (size,))
    overalls = None if overall is None else spread(overall, shape)
    if scales is None or scales.by_group != size or shape[-1] % size:
        return None
    if overall is not None and (overalls is None or overall.dtype not in PLAIN):
        return None
    divide = overall is not None and "weight_global_scale" in group.parts
    return group.dequantised(shape, _Fp4(group.main.read, shape[-1], scales, overalls, divide), how)


@dataclass(frozen=True)
class _Fp4:
    """Reads 4-bit floats times their scales."""

    read: ReadRows = field(repr=False)
    columns: int
    scales: Spread
    overall: Spread | None
    divide: bool

    def __call__(self, rows: slice | None) -> torch.Tensor:
        packed = self.read(rows)
        packed = packed.reshape(*packed.shape[: len(self.scales.shape) - 1], self.columns // 2)
        codebook = torch.tensor([*E2M1, *(-value for value in E2M1)])
        scales = self.scales(rows)
        if self.overall is not None:
            scales = scales / self.overall(rows) if self.divide else scales * self.overall(rows)
        return decode_pairs(packed, codebook) * scales
