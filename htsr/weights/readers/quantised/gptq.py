"""GPTQ: integers of 2, 3, 4 or 8 bits, packed along the inputs, with a scale and a zero point for each group of inputs.

The arithmetic is that of ``dequantize_weight`` in gptqmodel/nn_modules/qlinear.
"""

from dataclasses import dataclass, field

import torch

from htsr.errors import InputError
from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import unpack
from htsr.weights.readers.quantised.groups import Group
from htsr.weights.readers.quantised.scales import PLAIN, read_of

BITS = (2, 3, 4, 8)
# checkpoint_format in quantization_config, and what was subtracted from the zero points before they were packed.
OFFSETS = {"gptq": 1, "gptq_v2": 0}


def dequantise_gptq(group: Group) -> StoredTensor | str | None:
    """Return a GPTQ weight, or a reason if its layout is unknown; None if the group is of another scheme."""
    main, parts = group.main, group.parts
    if not group.has("qweight", ("qzeros", "scales"), ("g_idx",)) or {main.dtype, parts["qzeros"].dtype} != {"int32"}:
        return None
    if "awq" in (group.settings.get("quant_method"), str(group.settings.get("packing_format")).rpartition("_")[2]):
        return None
    scales, zeros, index = parts["scales"], parts["qzeros"], parts.get("g_idx")
    if [len(tensor.shape) for tensor in (main, scales, zeros)] != [2, 2, 2] or scales.dtype not in PLAIN:
        return None
    (words, out), (groups, columns) = main.shape, scales.shape
    if columns != out or zeros.shape[0] != groups or 0 in (*main.shape, *scales.shape):
        return None
    fitting = [bits for bits in BITS if zeros.shape[1] == -(-out * bits // 32) and words * 32 % bits == 0]
    said = group.settings.get("bits")
    if said is not None and said not in BITS:
        return f"packed by GPTQ with {said!r:.50} bits: expected {', '.join(map(str, BITS))}"
    if said not in fitting and len(fitting) != 1:
        return None
    bits = fitting[0] if said not in fitting else BITS[BITS.index(said)]
    inputs = words * 32 // bits
    size = group.settings.get("group_size")
    if not isinstance(size, int) or size < 1 or -(-inputs // size) != groups:
        size = -(-inputs // groups)
    if index is not None and (index.shape != (inputs,) or index.dtype not in ("int32", "int64")):
        return f"its group indices {index.key} of shape {index.shape} do not fit its {inputs} inputs"
    if index is None and -(-inputs // size) != groups:
        return f"its {groups} groups do not fit its {inputs} inputs"
    layout = group.settings.get("checkpoint_format") or group.settings.get("format")
    if layout is None and group.settings.get("quant_method") == "gptq":
        layout = "gptq"
    if layout is not None and not (isinstance(layout, str) and layout in OFFSETS):
        return f"its checkpoint_format {layout!r:.50} is none of {', '.join(OFFSETS)}"
    offset = None if layout is None else OFFSETS[layout]
    read = _Gptq(main.read, zeros.read, scales.read, read_of(index), inputs, size, bits, offset)
    return group.dequantised((out, inputs), read, f"GPTQ, {bits} bits")


@dataclass(frozen=True)
class _Gptq:
    """Reads a GPTQ weight."""

    read: ReadRows = field(repr=False)
    read_zeros: ReadRows = field(repr=False)
    read_scales: ReadRows = field(repr=False)
    read_index: ReadRows | None = field(repr=False)
    inputs: int
    group_size: int
    bits: int
    offset: int | None

    def __call__(self, rows: slice | None) -> torch.Tensor:
        outputs = slice(None) if rows is None else rows
        scales = self.read_scales(None).to(torch.float32)
        zeros = self._zeros(scales.shape[1])[:, outputs]
        scales = scales[:, outputs]
        group = (
            torch.arange(self.inputs) // self.group_size if self.read_index is None else self.read_index(None).long()
        )
        if int(group.min()) < 0 or int(group.max()) >= len(scales):
            raise InputError(
                f"the group indices of a GPTQ weight lie in [{int(group.min())}, {int(group.max())}]: expected 0 to "
                f"{len(scales) - 1}"
            )
        weight = unpack(self.read(None)[:, outputs].T.contiguous(), self.bits, self.inputs).to(torch.float32)
        weight -= zeros.T[:, group]
        weight *= scales.T[:, group]
        return weight

    def _zeros(self, out: int) -> torch.Tensor:
        """Return the zero points, with what was subtracted from them added again."""
        words = self.read_zeros(None)
        offset = self.offset
        if offset is None:  # weights quantised symmetrically have one known zero point
            stored = unpack(words, self.bits, out)
            offset = 2 ** (self.bits - 1) - int(stored[0, 0])
            if offset not in OFFSETS.values() or bool((stored != stored[0, 0]).any()):
                raise InputError(
                    "GPTQ: expected a quantization_config in config.json that says quant_method and checkpoint_format, "
                    "without which the zero points are ambiguous"
                )
        if offset and self.bits != 3:  # gptqmodel adds to whole words, with carry
            words = words + sum(1 << shift for shift in range(0, 31, self.bits))
            offset = 0
        zeros = unpack(words, self.bits, out).to(torch.int32)
        return ((zeros + offset) & (2**self.bits - 1)).to(torch.float32)
