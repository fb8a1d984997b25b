"""AWQ in its GEMM layout: 4-bit integers, eight interleaved outputs in a word, scales and zero points for groups of inputs.

The arithmetic is that of ``dequantize_gemm`` in gptqmodel/quantization/awq/utils/packing_utils.py.
"""

from dataclasses import dataclass, field

import torch

from htsr.weights.inventory import ReadRows, StoredTensor
from htsr.weights.readers.quantised.bits import unpack
from htsr.weights.readers.quantised.groups import Group
from htsr.weights.readers.quantised.scales import PLAIN

BITS = 4
# Where each of eight consecutive outputs stands in its word.
ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def dequantise_awq(group: Group) -> StoredTensor | str | None:
    """Return an AWQ weight, or a reason if its layout is another; None if the group is of another scheme."""
    main, parts = group.main, group.parts
    if not group.has("qweight", ("qzeros", "scales")) or {main.dtype, parts["qzeros"].dtype} != {"int32"}:
        return None
    scales, zeros = parts["scales"], parts["qzeros"]
    if [len(tensor.shape) for tensor in (main, scales, zeros)] != [2, 2, 2] or scales.dtype not in PLAIN:
        return None
    (inputs, words), (groups, out) = main.shape, scales.shape
    if words * 8 != out or zeros.shape != (groups, words) or not words or not groups or not inputs or inputs % groups:
        return None
    version = group.settings.get("version") or "gemm"
    if str(version).lower() != "gemm":
        return f"packed by AWQ in the layout {version!r:.50}: expected gemm"
    return group.dequantised((out, inputs), _Awq(main.read, zeros.read, scales.read), f"AWQ, {BITS} bits")


@dataclass(frozen=True)
class _Awq:
    """Reads an AWQ weight."""

    read: ReadRows = field(repr=False)
    read_zeros: ReadRows = field(repr=False)
    read_scales: ReadRows = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        scales = self.read_scales(None).to(torch.float32)
        weight, zeros = _in_order(self.read(None)).to(torch.float32), _in_order(self.read_zeros(None))
        size = len(weight) // len(scales)
        weight -= zeros.repeat_interleave(size, 0)
        weight *= scales.repeat_interleave(size, 0)
        return weight.T if rows is None else weight.T[rows]


def _in_order(words: torch.Tensor) -> torch.Tensor:
    """Return the integers of each row in the order of the outputs."""
    return unpack(words, BITS, words.shape[1] * 8).unflatten(-1, (-1, 8))[..., ORDER].flatten(-2)
