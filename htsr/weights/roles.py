"""Decide what a tensor does in its layer."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from htsr.weights.attention import Heads
from htsr.weights.recurrent import gates_by_shape, recurrent_type

# A bare tensor does not say which layer it came from. A 2-D tensor whose name has one of these words is an embedding; any
# other is dense.
EMBEDDING = re.compile(
    r"(^|[._])(\w*embed(ding)?s?\w*|token_embd|wte|wpe|relative_attention_bias)([._]|$)|^shared\.weight$"
    r"|(^|[._])((\w+_)?pos(itions?)?\d*|rel(ative)?_pos(ition)?_\w+)$",
    re.IGNORECASE,
)
# A tensor that is longer than this along a kernel dimension is a kernel only if its name says so: 3-D and 4-D tensors without a
# layer are just as often stacked experts or tokens.
MAX_KERNEL = 31
CONVOLUTION = re.compile(r"conv|kernel|patch", re.IGNORECASE)
EXPERTS = re.compile(r"expert|moe|_exps", re.IGNORECASE)
# Per-channel parameters of Mamba, Mamba 2 and RWKV: an element acts on its channel alone, and no vector is multiplied by them.
STATE_SPACE = re.compile(r"(^|[._])(A_logs?|dt_bias|time_(decay|first|faaaa|mix_\w+|maa_[a-z]))$")
# ``bias_k``, ``pos_bias_u`` and ``bias1`` are added, too.
BIAS = re.compile(r"(^|[._])bias(es)?(_?[a-z\d]{1,2})?$")
STATISTICS = re.compile(r"(^|[._])(running_(mean|var)|num_batches_tracked)$")
MASK = re.compile(r"(^|[._])mask$")


@dataclass(frozen=True)
class LayerRole:
    """What a tensor does in its layer, as the class of a module or the operation of a graph tells.

    Attributes:
        layer_type: See ``Layer``.
        axes: The order of axes that turns the tensor into ``(out, in, *kernel)``, or ``(in, out, *kernel)`` for a transposed
            convolution; None if it is stored that way.
        groups: Number of groups of a convolution.
        gates: Gates of a recurrent weight in the order in which they are stacked, by torch's letters: ``ifgo`` for an LSTM,
            ``rzn`` for a GRU; ``qkv`` for the joint weight of an attention.
        heads: What the layer, or the module around it, says about attention heads.
    """

    layer_type: str
    axes: tuple[int, ...] | None = None
    groups: int = 1
    gates: str = ""
    heads: Heads | None = None


def no_matrix_map(key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return why a tensor of two dimensions or more is not a weight, by its name, shape and siblings, or None."""
    if BIAS.search(key) or _bias_of_experts(key, shape, shapes):
        return "a bias or mask, not a weight"
    if STATE_SPACE.search(key):
        return "one parameter for each channel of a state-space model, not a matrix map"
    if STATISTICS.search(key):
        return "running statistics, not a weight"
    if MASK.search(key) and shape[-2] == shape[-1]:
        return "a bias or mask, not a weight"
    if _computes_another(key, shape, shapes):
        return "part of a weight that the module computes: pass the module to analyse that weight"
    if max(shape) == math.prod(shape) and not key.endswith("weight"):
        what = "a single row or column" if len(shape) == 2 else f"{len(shape)}-D with one row"
        return f"{what}: it is a vector, not a matrix"
    return None


def _bias_of_experts(key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether ``b1`` has one row for each matrix of a stack ``w1`` beside it."""
    named = re.fullmatch(r"(.*[._]|)([bB])(\d*)", key)
    if named is None or len(shape) != 2:
        return False
    path, letter, number = named.groups()
    experts, *sides = shapes.get(f"{path}{'w' if letter == 'b' else 'W'}{number}", (0,))
    return len(sides) == 2 and experts == shape[0] and shape[1] in sides


def _computes_another(key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether torch's weight_norm, spectral_norm, pruning or a parametrization computes a weight from this tensor."""
    # A name alone proves nothing: ``weight_g`` may be the weight of a gate. The other tensors of the same computation do.
    parametrized = re.match(r"(.*\.|)parametrizations\.\w+\.", key)
    if parametrized:
        return any(f"{parametrized.group()}{original}" in shapes for original in ("original", "original0"))
    stem, _, end = key.rpartition("_")
    match end:
        case "g" | "v":
            pair = shapes.get(f"{stem}_{'v' if end == 'g' else 'g'}", ())
            norm, direction = (shape, pair) if end == "g" else (pair, shape)
            fits = len(norm) == len(direction) and all(a in (1, b) for a, b in zip(norm, direction, strict=True))
            return fits and 1 in norm
        case "orig":
            return shapes.get(f"{stem}_mask") == shape or len(shapes.get(f"{stem}_u", ())) == 1
        case "mask":
            return shapes.get(f"{stem}_orig") == shape
    return False


def role_by_name(
    key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]], *, unknown_layer: bool = True
) -> LayerRole | str:
    """Infer what a tensor with at least two dimensions does from its name and shape, or return why it has no role."""
    # ``unknown_layer`` says that the tensor may belong to a layer of torch's own. A parameter of a module of another class is a
    # 1-D kernel only if its name says so. Name and shape cannot tell everything: a grouped convolution looks like one with fewer
    # inputs, and a transposed kernel like any other (its eigenvalues are the same).
    gates = gates_by_shape(key, shapes) if len(shape) == 2 else None
    if gates is not None and shape[0] % max(len(gates), 1) == 0:
        projection = re.search(r"weight_hr(_l\d+)?(_reverse)?$", key)
        return LayerRole(recurrent_type(gates), gates="" if projection else gates)
    # a table of embeddings has no bias: with one, a layer of that name multiplies
    has_bias = f"{key.removesuffix('weight')}bias" in shapes
    matrix = LayerRole("embedding" if EMBEDDING.search(key) and not has_bias else "dense")
    if len(shape) == 2:
        return matrix
    vectors = f"{len(shape)}-D with one row or column: vectors, not matrices"
    if EXPERTS.search(key) and min(shape[-2:]) == 1:
        return vectors
    if not unknown_layer and max(shape) == math.prod(shape):  # scales of channels
        return vectors
    sides = [side for side in shape if side > 1]
    if matrix.layer_type == "embedding" and shape[0] == 1 < len(sides) and not key.endswith("weight"):
        return matrix  # a table of positions, also of those of a grid
    short = max(shape[2:]) <= MAX_KERNEL and (unknown_layer or len(shape) > 3)
    table = not key.endswith("weight") and (shape[0] == 1 or EMBEDDING.search(key))
    if len(shape) <= 5 and not EXPERTS.search(key) and ((short and not table) or CONVOLUTION.search(key)):
        return LayerRole(f"conv{len(shape) - 2}d")
    if math.prod(shape[:-2]) == 1:
        return matrix if shape[-2] > 1 else f"{len(shape)}-D with one row: it is a vector, not a matrix"
    if len(sides) == 2:  # (rows, 1, columns): a table or a bank of filters, not a stack of vectors
        return matrix
    return LayerRole("stack")
