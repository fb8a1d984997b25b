"""What a tensor does in its layer."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from htsr.weights.attention import Heads
from htsr.weights.recurrent import TYPES, gates_by_shape

# A bare tensor does not say which layer it came from: 2-D tensors are embeddings by these words, else dense.
EMBEDDING = re.compile(
    r"(^|[._])(\w*embed(ding)?s?\w*|token_embd|wte|wpe|relative_attention_bias)([._]|$)|^shared\.weight$", re.IGNORECASE
)
# A kernel longer than this is no kernel, unless its name says so: 3-D and 4-D tensors without a layer are as often stacked
# experts or tokens.
MAX_KERNEL = 31
CONVOLUTION = re.compile(r"conv|kernel|patch", re.IGNORECASE)
EXPERTS = re.compile(r"expert|moe|_exps", re.IGNORECASE)


@dataclass(frozen=True)
class LayerRole:
    """What a tensor does in its layer, where the source tells: the class of a module, the operation of a graph.

    Attributes:
        layer_type: See ``Layer``.
        axes: The order of the axes that makes it ``(out, in, *kernel)``; ``(in, out, *kernel)`` for transposed convolutions.
        groups: Groups of a convolution.
        gates: Gates of a recurrent weight in the order in which they are stacked, by torch's letters: ``ifgo`` for an LSTM,
            ``rzn`` for a GRU.
        heads: What the layer, or the module it stands in, says of attention heads.
    """

    layer_type: str
    axes: tuple[int, ...] | None = None
    groups: int = 1
    gates: str = ""
    heads: Heads | None = None


def role_by_name(
    key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]], *, unknown_layer: bool = True
) -> LayerRole | str:
    """What a tensor does, judged by its name and shape.

    Args:
        key: The tensor's name.
        shape: Its shape, two sides at least and none of them 0.
        shapes: Shapes of all tensors of the source, by name.
        unknown_layer: Whether it may be the kernel of a layer of torch's own. A parameter of a module of another class is a
            kernel in one dimension only if its name says so.

    Returns:
        Its role, or why it has none.

    Notes:
        A name and a shape do not tell everything: a grouped convolution looks like one with fewer inputs, and the kernel of a
        transposed one like any other (its eigenvalues are the same). A module, an ONNX graph and a Keras file tell.
    """
    gates = gates_by_shape(key, shapes) if len(shape) == 2 else None
    if gates is not None and shape[0] % max(len(gates), 1) == 0:
        projection = re.search(r"weight_hr(_l\d+)?(_reverse)?$", key)
        return LayerRole(TYPES[gates], gates="" if projection else gates)
    matrix = LayerRole("embedding" if EMBEDDING.search(key) else "dense")
    if len(shape) == 2:
        return matrix
    short = max(shape[2:]) <= MAX_KERNEL and (unknown_layer or len(shape) > 3)
    table = not key.endswith("weight") and (shape[0] == 1 or EMBEDDING.search(key))
    if len(shape) <= 5 and not EXPERTS.search(key) and ((short and not table) or CONVOLUTION.search(key)):
        return LayerRole(f"conv{len(shape) - 2}d")
    if math.prod(shape[:-2]) == 1:
        return matrix if shape[-2] > 1 else f"{len(shape)}-D with one row: it is a vector, not a matrix"
    return LayerRole("stack")
