"""Where a layer stands in its model and what it does there, by its name: block 11 comes after block 2, in files too."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from htsr.weights.names import natural_order

# Roles in the order of their panels, each with what its names look like after the block. The first that matches wins, so
# attention's output comes before the MLP's, and a joint weight before its parts.
ROLES = (
    (
        "qkv",
        r"^(?!.*\[).*((^|[._])(w?qkv\w*|query_key_value|in_proj\w*|attn_qkv|W_pack|to_qkv)([._]|$)|attn\.c_attn)",
    ),
    ("q", r"\[q\]$|(^|[._])(w?q|q_proj\w*|q_lin|q_[ab]_proj\w*|query(_proj\w*)?|to_q|attn_q|q_projection\w*)([._]|$)"),
    ("k", r"\[k\]$|(^|[._])(w?k|k_proj\w*|k_lin|key(_proj\w*)?|to_k|attn_k|k_projection\w*)([._]|$)"),
    ("v", r"\[v\]$|(^|[._])(w?v|v_proj\w*|v_lin|value(_proj\w*)?|to_v|attn_v|v_projection\w*)([._]|$)"),
    ("kv", r"(^|[._])(kv\w*|to_kv)([._]|$)"),
    (
        "o",
        r"(^|[._])(o_proj\w*|out_proj\w*|out_lin|to_out|attn_output|attn_out)([._]|$)|^(?!.*Dense)(.*\.)?(wo|o)(\.|$)"
        r"|att\w*\.(output\.)?(dense|c_proj|proj|output)(\.|$)|^output(\.weight)?$",
    ),
    ("router", r"(^|\.)(router|gate|mlp\.gate|ffn_gate_inp)(\.weight|\.classifier)?$"),
    ("gate", r"\[gate\]$|(^|[._])(gate_proj\w*|ffn_gate\w*|w1|wi_0|linear_gate)([._]|$)"),
    (
        "up",
        r"\[up\]$|(^|[._])(up_proj\w*|ffn_up\w*|fc1|c_fc|lin1|linear1|w3|wi|wi_1|up|dense_h_to_4h|gate_up_proj\w*)([._]|$)"
        r"|intermediate\.dense|(mlp|ff\w*|net)\.0(\.proj)?(\.|$)",
    ),
    (
        "down",
        r"\[down\]$|(^|[._])(down_proj\w*|ffn_down\w*|fc2|lin2|linear2|w2|down|dense_4h_to_h)([._]|$)"
        r"|(mlp|ff\w*)\.c_proj|output\.dense|Dense\w*\.wo|(mlp|ff\w*|net)\.[2-4](\.|$)",
    ),
)  # fmt: skip
_ROLES = tuple((role, re.compile(pattern)) for role, pattern in ROLES)
# A stack inside a stack counts too (``stages.2.blocks.5``); parts of a block do not (``block.3.layer.0``, ``experts.7``).
BLOCK = re.compile(r"^(?:.*?[._])??\d+(?=[._\[]|$)(?:\.(?:blocks|layers|resnets|attentions)\.\d+)*")
STAGE = re.compile(r"^((?:.*[._])?(?:layer|block|stage)s?_?\d+)\.(\d+)(?=\.)")
# What comes first in a model whose file sorts its names by the alphabet.
FIRST = (r"encoder|^down|vision|visual", r"mid|bottleneck|bridge", r"decoder|^up|text|language")


class Place(NamedTuple):
    """Where a layer stands.

    Attributes:
        block: Number of its block, counted from 0 along the whole model; -1 for a layer outside any block.
        label: The block's own name, such as ``encoder.layers.11``; empty outside.
        role: What the layer does: q, k, v, kv, qkv, o, router, gate, up, down, embedding, head, conv, or other.
    """

    block: int
    label: str
    role: str


def places(names: Sequence[str], layer_types: Sequence[str] | None = None) -> list[Place]:
    """Return the place of each layer.

    Args:
        names: Names of the layers, in any order.
        layer_types: Their types, where known.

    Returns:
        Their places, in the order of the names.
    """
    types = list(layer_types) if layer_types is not None else [""] * len(names)
    labels = [_block(name) for name in names]
    ordered = sorted({label for label in labels if label}, key=_block_order)
    number = {label: i for i, label in enumerate(ordered)}
    return [
        Place(number.get(label, -1), label, _role(name, label, kind))
        for name, label, kind in zip(names, labels, types, strict=True)
    ]


def by_depth(found: Sequence[Place]) -> list[int]:
    """Return the order of layers along the model.

    Args:
        found: Their places, in the order of a table.

    Returns:
        Their numbers in that table: embeddings and first convolutions, the blocks, the rest. Layers of one block keep the
        table's order.
    """
    first = next((i for i, place in enumerate(found) if place.block >= 0), 0)
    last = len(found)

    def key(number: int) -> int:
        place = found[number]
        if place.block >= 0:
            return place.block
        before = place.role in ("embedding", "conv") or (place.role == "other" and number < first)
        return -1 if before else last

    return sorted(range(last), key=key)


def _block(name: str) -> str:
    """Return the name of the block that holds a layer: all up to the first number, or to the number of a stage's block."""
    staged = STAGE.match(name)
    found = staged or BLOCK.match(name)
    return found.group() if found else ""


def _block_order(label: str) -> tuple[int, list[tuple[int, str]]]:
    """Return the sort key of a block: the encoder's before the decoder's, then numbers as numbers."""
    rank = next((i for i, pattern in enumerate(FIRST) if re.search(pattern, label)), 1)
    return rank, natural_order(label)


def _role(name: str, label: str, kind: str) -> str:
    """Return what a layer does, by its name inside its block and by its type."""
    if kind == "embedding":
        return "embedding"
    inside = name[len(label) :].lstrip("._") or name
    if not label and re.search(r"(^|\.)(lm_head|head|classifier|score|fc|output)(\.|$)", name):
        return "head"
    for role, pattern in _ROLES:
        if pattern.search(inside):
            return role
    if kind.startswith("conv"):
        return "conv"
    return "embedding" if re.search(r"embed|(^|\.)wte|(^|\.)wpe", inside) else "other"
