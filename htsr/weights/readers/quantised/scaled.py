"""Weights with one integer or 8-bit float an element, times scales for the whole tensor, each row or each block.

DeepSeek (blocks), FBGEMM and compressed-tensors (tensor, row, group or block), SmoothQuant, torchao and optimum-quanto (rows),
and MXFP8 (32 columns; OCP Microscaling Formats 1.0, section 5.2) all store such weights, under different names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.groups import FP8, Group
from htsr.weights.readers.quantised.scales import EXPONENTS, PLAIN, Spread, spread

NAMES = ("weight", "qweight", "weight_data", "weight_qdata", "qdata")
SCALES = ("weight_scale_inv", "weight_scale", "scale", "scale_weight")
ZERO_POINTS = {"weight_scale": "weight_zero_point", "scale": "zero_point"}
# Rows and columns of a block, from weight_block_size in the config.json of DeepSeek-V3, and columns of a block of MXFP8.
BLOCK, MX_BLOCK = 128, 32


def dequantise_scaled(group: Group) -> StoredTensor | str | None:
    """Return the weight times its scales, or a reason if they do not fit it; None if the group is of another scheme."""
    main = group.main
    is_fp8 = FP8.fullmatch(main.dtype) is not None
    scale_name = next((name for name in SCALES if name in group.parts), None)
    if scale_name is None or not (is_fp8 or main.dtype == "int8") or not main.shape:
        return None
    zero_name = ZERO_POINTS.get(scale_name, "")
    scale, zero = group.parts[scale_name], group.parts.get(zero_name)
    if not group.has(NAMES, (scale_name,), (zero_name,)) or scale.dtype not in (PLAIN | EXPONENTS if is_fp8 else PLAIN):
        return None
    said = list(_said_sizes(group.settings))
    sizes = [*said, *([MX_BLOCK] if scale.dtype in EXPONENTS else []), BLOCK]
    scales = spread(scale, main.shape, sizes)
    if scales is None:
        return f"its scales {scale.key} of shape {scale.shape} do not fit its shape {main.shape}"
    rows = scales.blocks[0]
    split = len(main.shape) == 2 and scales.counts[0] not in (1, main.shape[0]) and scales.counts[1] == 1
    if split and rows not in said and main.shape[1] > rows:  # no blocks: one scale for each of several fused weights
        return f"its {scales.counts[0]} scales {scale.key} do not say which of its {main.shape[0]} rows they are for"
    zeros = None
    if zero is not None:
        zeros = spread(zero, main.shape, sizes)
        if zeros is None or zeros.counts != scales.counts or zero.dtype in EXPONENTS - {"uint8"}:
            return f"its zero points {zero.key} of shape {zero.shape} do not fit its scales of shape {scale.shape}"
        zeros = Spread(zeros.read, zeros.counts, zeros.blocks, zeros.shape, exponents=False)
    how = f"{main.dtype}, multiplied by its scales"
    return group.dequantised(main.shape, _Scaled(main.read, scales, zeros), how)


def _said_sizes(settings: Mapping[str, object]) -> Iterator[object]:
    """Yield the sizes of blocks that the settings give."""
    groups = settings.get("config_groups")
    weights = (
        [entry.get("weights") for entry in groups.values() if isinstance(entry, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    for said in [settings, *filter(lambda entry: isinstance(entry, Mapping), weights)]:
        assert isinstance(said, Mapping)
        for name in ("weight_block_size", "block_structure", "group_size"):
            size = said.get(name)
            yield from size if isinstance(size, list) else [size]


@dataclass(frozen=True)
class _Scaled:
    """Reads a weight minus its zero points, times its scales."""

    read: ReadRows = field(repr=False)
    scales: Spread
    zeros: Spread | None

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = self.read(rows).to(torch.float32)
        if self.zeros is not None:
            weight = weight - self.zeros(rows)
        return weight * self.scales(rows)
