"""Decide what an operation of an ONNX graph does with a constant: which weight it is, or why it is none."""

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from htsr.weights.readers.einsum import einsum_matrix
from htsr.weights.readers.onnx.constants import Constant
from htsr.weights.readers.onnx.graph import Use
from htsr.weights.readers.onnx.values import Value, attributes, compute, constants_of, matrix, scaled
from htsr.weights.recurrent import RECURRENT, recurrent_type
from htsr.weights.roles import EMBEDDING, LayerRole

# Gates in the order of the ONNX standard, by torch's letters. ONNX has i, o, f, c for LSTM and z, r, h for GRU.
GATES = {"LSTM": "iofg", "GRU": "zrn", "RNN": "", "DynamicQuantizeLSTM": "iofg"}
# A grouped convolution with more groups than this, whose kernels are no vectors, is skipped.
MAX_GROUPS = 4096
# Operations with integer weights: where the weight, its scale and its zero point are among the inputs, and the axis of the weight
# that a scale of one dimension runs along.
QUANTISED = {
    "QLinearConv": (3, 4, 5, 0),
    "QLinearMatMul": (3, 4, 5, -1),
    "DynamicQuantizeMatMul": (1, 2, 3, -1),
    "MatMulIntegerToFloat": (1, 3, 5, -1),
    "QAttention": (1, 4, 7, -1),
    "QGemm": (3, 4, 5, -1),
}
# Names that an exporter invents for a weight after losing its own name. The path of the operation then takes their place:
# "encoder.layer.0" for "/encoder/layer.0/MatMul".
ANONYMOUS = re.compile(r"^(onnx::.*|val_?\d+|_?v?_?\d+|const_.*|(.*[/_.])?[Cc]onstant(_\d+)?(_output_\d+)?|)$")
STANDARD = ("", "ai.onnx", "com.microsoft")
PRODUCTS = ("MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm", "GemmFloat8")
# Operations that hand on what they are given; ``values`` follows them if their settings are constants.
MOVES = {"Reshape", "Shape", "Slice", "Split", "SplitToSequence", "Squeeze", "Transpose", "Unsqueeze"}
# Operations of onnxruntime whose input 1 has the columns of q, k and v side by side.
ATTENTION = {"Attention", "QAttention", "PackedAttention", "DecoderMaskedSelfAttention", "LongformerAttention"}
# Operations of onnxruntime whose weights are in a form that is not read.
UNREAD = {
    "AttnLSTM", "DecoderAttention", "GatherBlockQuantized", "MatMulBnb4", "MatMulFpQ4", "QEmbedLayerNormalization", "QMoE",
    "QOrderedAttention", "QOrderedMatMul",
}  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """A constant that an operation uses as a weight.

    Attributes:
        value: The weight, in the shape that the role expects.
        role: What it does; None if only its name can tell.
        variable: torch's name of it: ``weight``, ``weight_ih``.
    """

    value: Value
    role: LayerRole | None
    variable: str = "weight"


def weight_of(use: Use, name: str) -> Weight | str:
    """Return the weight that an operation makes of a constant of this name, or the reason why it is not one."""
    node, place, value = use.node, use.place, use.value
    operation, sides, settings = node.op_type, len(value.shape), attributes(node)
    if node.domain not in STANDARD:
        return _by_name(use)
    if operation in GATES:
        return _recurrent(use)
    if node.domain == "com.microsoft" and operation in UNREAD:
        return f"input {place} of {operation}, which is not read: export the model without this operation"
    if operation in QUANTISED or operation in ("MatMulInteger", "ConvInteger"):
        return _quantised(use, settings)
    if operation == "MatMulNBits":
        return _packed(use, settings)
    if operation in PRODUCTS and place < 2 and _is_input(use):
        return f"input {place} of {operation}: what its weight is multiplied by"
    match operation:
        case _ if operation in PRODUCTS and place < 2 <= sides:
            role = _product(value.shape, place, settings)
            # a recurrent cell of torch becomes two Gemm, whose weights keep the names that tell their gates
            return Weight(value, None if role.axes is None and RECURRENT.fullmatch(name) else role)
        case "Conv" | "ConvTranspose" | "FusedConv" | "NhwcFusedConv" | "Gemm" | "FusedGemm" if place == 2:
            return f"the bias of {operation}"
        case _ if operation in ATTENTION and node.domain == "com.microsoft" and place == 1 and sides == 2:
            return Weight(value, _attention(settings))
        case "Conv" | "ConvTranspose" | "FusedConv" | "NhwcFusedConv" if place == 1 and 3 <= sides <= 5:
            return _convolution(value, "Transpose" in operation, settings)
        case "Gather" if place == 0 and sides == 2:
            return _table(use)
        case "EmbedLayerNormalization" if place in (2, 3, 4) and sides == 2:
            return Weight(value, LayerRole("embedding"))
        case "Einsum" if len(node.input) == 2:
            return _einsum(value, place, settings)
        case "MoE" if node.domain == "com.microsoft" and sides == 3:
            return Weight(value, LayerRole("stack"))
    if EMBEDDING.search(name) and max(value.shape, default=0) < math.prod(value.shape):
        return Weight(value, None)  # a table of positions, which is added or cut to length
    if operation in MOVES and sides > 1:
        return f"input {place} of {operation}, with sizes that the graph computes: htsr does not follow where it goes"
    return f"input {place} of {operation}: not the weight of a matrix product"


def _is_input(use: Use) -> bool:
    """Return whether a factor of a product of two constants is none that anybody named, such as an initial state, beside one."""
    values = use.inputs[:2]
    if None in values:
        return False
    own, other = (constants_of(value)[0] for value in (use.value, values[1 - use.place]) if value is not None)

    def made(constant: Constant) -> tuple[bool, bool]:
        """Return whether the exporter named a constant, and whether a node holds it."""
        return ANONYMOUS.match(constant.name) is not None, any(field == "node" for field, _ in constant.address)

    return made(own) > made(other)


def _by_name(use: Use) -> Weight | str:
    """Return a constant of an operation that is not ONNX's own as a weight, unless it may be the scale of another one."""
    integers = [
        constant
        for value in use.inputs
        if value is not None
        for constant in constants_of(value)[:1]
        if "int" in constant.dtype and len(constant.shape) > 1
    ]
    if integers or math.prod(use.value.shape) == max(use.value.shape, default=1):
        return (
            f"input {use.place} of {use.node.domain}.{use.node.op_type}: not known to be the weight of a matrix product"
        )
    return Weight(use.value, None)


def _attention(settings: dict[str, Any]) -> LayerRole:
    """Return the role of the joint weight of an attention, ``(in, q + k + v)``."""
    alike = len(set(settings.get("qkv_hidden_sizes", ()))) < 2
    return LayerRole("dense", axes=(1, 0), gates="qkv" if alike else "")


def _table(use: Use) -> Weight | str:
    """Return a table of embeddings; if it holds integers, with the scale that the graph applies to the rows that it looks up."""
    if use.scale is None:
        return Weight(use.value, LayerRole("embedding"))
    made = _rescaled(use.value, use.scale, use.zero, {})
    if made is None:
        return "integers whose scale the graph applies in a way that is not understood"
    return Weight(made, LayerRole("embedding"))


def _product(shape: tuple[int, ...], place: int, settings: dict[str, Any]) -> LayerRole:
    """Return the role of one factor of a matrix product; a right factor is ``(in, out)`` unless it is transposed."""
    sides = len(shape)
    turned = bool(settings.get("transA" if place == 0 else "transB"))
    axes = None if (place == 0) != turned else (*range(sides - 2), sides - 1, sides - 2)
    return LayerRole("dense" if math.prod(shape[:-2]) == 1 else "stack", axes=axes)


def _convolution(value: Value, transposed: bool, settings: dict[str, Any]) -> Weight | str:
    """Return the kernel of a convolution."""
    sides, groups = len(value.shape), settings.get("group", 1)
    if groups < 1 or value.shape[0] % groups:
        groups = 1
    if groups > MAX_GROUPS and value.shape[1] > 1:
        return f"a convolution of {groups:,} groups: more than the limit of {MAX_GROUPS:,}"
    return Weight(value, LayerRole(f"conv{'_transpose' * transposed}{sides - 2}d", groups=groups))


def _einsum(value: Value, place: int, settings: dict[str, Any]) -> Weight | str:
    """Return an operand of an einsum as a matrix or a stack of matrices."""
    equation = settings.get("equation", b"")
    found = einsum_matrix(equation.decode(errors="replace"), place, value.shape)
    made = found and compute(partial(matrix, found.axes, found.shape), [value], found.shape)
    if not found or not made:
        return "an operand of an einsum that is no matrix product"
    return Weight(made, LayerRole("dense" if len(found.shape) == 2 else "stack"))


def _recurrent(use: Use) -> Weight | str:
    """Return a weight of a recurrent layer, ``(directions, gates * hidden, in)``."""
    operation, place, value = use.node.op_type, use.place, use.value
    if place not in (1, 2) or len(value.shape) != 3:
        return "a bias, a scale or an initial state of a recurrent layer"
    role = LayerRole(recurrent_type(GATES[operation]), gates=GATES[operation])
    if operation == "DynamicQuantizeLSTM":  # stored (directions, in, gates * hidden), with scales as inputs 8 to 11
        scale, zero = (_input(use, number) for number in ((8, 9) if place == 1 else (10, 11)))
        directions, _, gates = value.shape
        made = _rescaled(
            value, scale, zero, {(directions,): (directions, 1, 1), (directions, gates): (directions, 1, gates)}
        )
        if made is None:
            return "integers whose scales the graph computes"
        value, role = made, LayerRole(role.layer_type, (0, 2, 1), gates=role.gates)
    return Weight(value, role, ("weight_ih", "weight_hh")[place - 1])


def _quantised(use: Use, settings: dict[str, Any]) -> Weight | str:
    """Return the integer weight of an operation, with its scale and zero point applied."""
    operation = use.node.op_type
    if operation in QUANTISED:
        *places, axis = QUANTISED[operation]
        if settings.get("transB"):  # a scale for each output
            axis = 0
        weight, scale, zero = (_input(use, number) for number in places)
    else:  # MatMulInteger and ConvInteger leave the scale to the operations after them
        places, axis = [1], -1 if operation == "MatMulInteger" else 0
        weight, scale, zero = _input(use, 1), use.scale, _input(use, 3)
    if use.place != places[0] or weight is None or len(weight.shape) < 2:
        return f"input {use.place} of {operation}: a scale, a zero point or a bias"
    sides = len(weight.shape)
    along = [1] * sides
    along[axis] = weight.shape[axis]
    forms = {(weight.shape[axis],): tuple(along), tuple(along): tuple(along)}
    value = _rescaled(weight, scale, zero, forms)
    if value is None:
        return "integers whose scale the graph applies in a way that is not understood"
    if "Conv" in operation:
        return _convolution(value, False, settings)
    return Weight(value, _attention(settings) if operation == "QAttention" else _product(value.shape, 1, settings))


def _rescaled(
    weight: Value, scale: Value | None, zero: Value | None, forms: dict[tuple[int, ...], tuple[int, ...]]
) -> Value | None:
    """Return ``(weight - zero) * scale``; ``forms`` maps the shapes that scales may have to the shapes that broadcast."""
    single = (1,) * len(weight.shape)

    def form(value: Value) -> tuple[int, ...] | None:
        return single if math.prod(value.shape) == 1 else forms.get(value.shape)

    scale_form = None if scale is None else form(scale)
    zero_form = single if zero is None else form(zero)
    if scale_form is None or zero_form is None:
        return None
    return compute(partial(scaled, scale_form, zero_form), [weight, scale, zero], weight.shape)


def _packed(use: Use, settings: dict[str, Any]) -> Weight | str:
    """Return the weight of MatMulNBits: ``(N, blocks of K, bytes)`` with a scale for each block."""
    weight, scales, zeros = (_input(use, place) for place in (1, 2, 3))
    rows, columns = settings.get("N", 0), settings.get("K", 0)
    bits, block = settings.get("bits", 4), settings.get("block_size", 0)
    if use.place != 1 or weight is None or scales is None:
        return f"input {use.place} of MatMulNBits: a scale, a zero point or a bias"
    if bits not in (2, 4, 8) or block < 1 or columns < 1 or rows < 1 or (len(use.node.input) > 4 and use.node.input[4]):
        return "packed integers in an order that is not understood"
    blocks = -(-columns // block)
    fits = math.prod(weight.shape) == rows * blocks * block * bits // 8 and math.prod(scales.shape) == rows * blocks
    value = compute(partial(unpack_bits, rows, columns, bits, block), [weight, scales, zeros], (rows, columns))
    if not fits or value is None:
        return "packed integers whose sizes do not fit the operation"
    return Weight(value, LayerRole("dense"))


def unpack_bits(
    rows: int, columns: int, bits: int, block: int, packed: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None
) -> np.ndarray:
    """Return the weight ``(rows, columns)`` of MatMulNBits, whose bytes hold the first value in their lowest bits."""
    blocks = -(-columns // block)

    def unpacked(data: np.ndarray, count: int) -> np.ndarray:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values = (data.reshape(rows, -1, 1) >> shifts) & np.uint8((1 << bits) - 1)
        return values.reshape(rows, -1)[:, :count].astype(np.float32)

    values = unpacked(packed.view(np.uint8), blocks * block).reshape(rows, blocks, block)
    middle: np.ndarray | float = float(1 << (bits - 1))
    if zeros is not None:
        middle = (unpacked(zeros, blocks) if zeros.dtype == np.uint8 else zeros.reshape(rows, blocks))[..., None]
    result = (values - middle) * scales.reshape(rows, blocks, 1).astype(np.float32)
    return result.reshape(rows, -1)[:, :columns]


def _input(use: Use, place: int) -> Value | None:
    """Return an input that is made of constants; None if there is none."""
    return use.inputs[place] if place < len(use.inputs) else None
