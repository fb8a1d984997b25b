"""Attention weights: fused query, key and value taken apart, and single heads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from htsr.weights.parts import Part

# Names of weights that hold query, key and value: torch, timm, GPT-2, GPT-NeoX and Falcon, MPT and ModernBERT, InternLM2,
# Baichuan, diffusers, GGUF.
FUSED = re.compile(
    r"(^|.*[._])(in_proj_weight|attn\.in_proj|qkv|qkv_proj|query_key_value|c_attn|w_?qkv|w_pack|to_qkv)(\.weight)?$",
    re.I,
)
# ... and those that hold key and value.
FUSED_KV = re.compile(r"(^|.*[._])(kv|kv_proj|to_kv)(\.weight)?$", re.I)
# Names of weights of one role: heads are rows of query, key and value, and columns of the output.
HEADS_IN_ROWS = re.compile(r"(?:^|.*[._])(?:to_|w)?([qkv])(?:_proj|uery|ey|alue)?(?:_weight|\.weight)?$", re.I)
HEADS_IN_COLUMNS = re.compile(r"(^|.*[._])(o_proj|out_proj|to_out\.0|wo|attn\.c_proj|attn_output)(\.weight)?$", re.I)
# Architectures of transformers that store query, key and value of each head together.
INTERLEAVED = {"gpt_neox", "gpt_neox_japanese", "bloom", "persimmon", "internlm2", "chatglm"}


@dataclass(frozen=True)
class Heads:
    """What a configuration says of the attention heads; None where it does not.

    Attributes:
        num: Query heads.
        num_kv: Heads of key and of value; fewer than ``num`` in grouped-query attention.
        size: Rows of one head.
        interleaved: Whether a fused weight holds query, key and value head by head; None if not known.
    """

    num: int | None = None
    num_kv: int | None = None
    size: int | None = None
    interleaved: bool | None = None

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Heads":
        """Read a configuration in the words of transformers, or of GGUF."""
        for inner in ("text_config", "llm_config"):
            if isinstance(config.get(inner), Mapping):
                return cls.of(config[inner])  # type: ignore[arg-type]
        architecture = config.get("general.architecture")
        num = _first(
            config, "num_attention_heads", "n_head", "num_heads", "n_heads", f"{architecture}.attention.head_count"
        )
        num_kv = _first(
            config,
            "num_key_value_heads",
            "num_kv_heads",
            "n_kv_heads",
            "n_head_kv",
            f"{architecture}.attention.head_count_kv",
        )
        size = _first(config, "head_dim", "kv_channels", f"{architecture}.attention.key_length")
        hidden = _first(config, "hidden_size", "n_embd", "d_model", f"{architecture}.embedding_length")
        falcon = config.get("model_type") == "falcon"
        new_falcon = falcon and config.get("new_decoder_architecture") is True
        if (falcon or config.get("model_type") == "gpt_bigcode") and config.get("multi_query") and not new_falcon:
            num_kv = 1
        elif falcon and not new_falcon:
            num_kv = num
        interleaved = config.get("model_type") in INTERLEAVED or (
            falcon and (new_falcon or not config.get("multi_query"))
        )
        if size is None and num and hidden:
            size = hidden // num
        return cls(num, num_kv or num, size, interleaved if config else None)


def _first(config: Mapping[str, object], *names: str) -> int | None:
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def fused_parts(key: str, weight: Part, heads: Heads) -> tuple[list[Part], str]:
    """Cut a weight that holds query, key and value into the three, ``[q]``, ``[k]`` and ``[v]``.

    Args:
        key: Its name.
        weight: ``(out, in)``, or ``(in, out)`` as in GPT-2, told by the longer side.
        heads: What is known of the heads.

    Returns:
        The parts, each ``(out, in)``, and what to be wary of; the weight as it is, where it is none or cannot be cut.
    """
    if len(weight.shape) != 2 or not (FUSED.fullmatch(key) or FUSED_KV.fullmatch(key)):
        return [weight], ""
    query, kv = (heads.num or 0) * (heads.size or 0), (heads.num_kv or 0) * (heads.size or 0)
    by_config = query and query + 2 * kv in weight.shape
    if weight.shape[0] != query + 2 * kv if by_config else weight.shape[0] < weight.shape[1]:
        weight = weight.permute((1, 0))
    rows, columns = weight.shape
    if FUSED_KV.fullmatch(key) or (rows == 2 * columns and "cross" in key):  # GPT-2's cross-attention keeps q apart
        if rows % 2:
            return [weight], "fused key and value with an odd number of rows: analysed as one matrix"
        return _rows(weight, {"k": rows // 2, "v": rows // 2}), ""
    if heads.interleaved and by_config:
        return _interleaved(weight, heads), ""
    if heads.interleaved is None and re.search(r"query_key_value|wqkv", key) and "attention" in key:
        return [weight], "fused query, key and value whose order only a config.json tells: analysed as one matrix"
    if by_config:
        return _rows(weight, {"q": query, "k": kv, "v": kv}), ""
    if rows == 3 * columns or (rows % 3 == 0 and key.endswith("in_proj_weight")):
        return _rows(weight, dict.fromkeys("qkv", rows // 3)), ""
    if columns < rows < 3 * columns and (rows - columns) % 2 == 0:
        kv = (rows - columns) // 2
        return _rows(
            weight, {"q": columns, "k": kv, "v": kv}
        ), "split by shape: a query as wide as the input is assumed"
    return [weight], "fused query, key and value of unknown sizes: analysed as one matrix"


def head_parts(key: str, weight: Part, heads: Heads) -> list[Part]:
    """Cut an attention weight into its heads, ``[0]``, ``[1]``, ...; other weights stay whole.

    Args:
        key: Its name.
        weight: ``(out, in)``; a part with the label ``[q]``, ``[k]`` or ``[v]``, or a weight with a name of one.
        heads: What is known of the heads.

    Returns:
        The heads, ``(rows of a head, in)``, or ``(out, columns of a head)`` for the output projection.
    """
    if len(weight.shape) != 2 or not heads.num:
        return [weight]
    named = HEADS_IN_ROWS.fullmatch(key)
    part = re.search(r"\[([qkv])\]$", weight.label)
    letter = part.group(1) if part else named.group(1).lower() if named else ""
    if letter:
        dim, num = 0, heads.num if letter == "q" else heads.num_kv or heads.num
    elif HEADS_IN_COLUMNS.fullmatch(key):
        dim, num = 1, heads.num
    else:
        return [weight]
    size, rest = divmod(weight.shape[dim], num)
    if rest or size == 0 or (heads.size and size != heads.size):
        return [weight]
    return [weight.narrow(dim, i * size, size, f"[{i}]") for i in range(num)]


def _rows(weight: Part, sizes: Mapping[str, int]) -> list[Part]:
    parts, start = [], 0
    for label, size in sizes.items():
        parts.append(weight.narrow(0, start, size, f"[{label}]"))
        start += size
    return parts


def _interleaved(weight: Part, heads: Heads) -> list[Part]:
    """Rows are ``(kv heads, queries of the group + key + value, size)``: GPT-NeoX has one query a group, Falcon several."""
    assert heads.num is not None
    assert heads.num_kv is not None
    assert heads.size is not None
    columns, group = weight.shape[1], heads.num // heads.num_kv
    by_group = weight.reshape(heads.num_kv, group + 2, heads.size, columns)
    query = by_group.narrow(1, 0, group, "[q]").reshape(heads.num * heads.size, columns)
    key, value = (
        by_group.select(1, group + i, label).reshape(heads.num_kv * heads.size, columns)
        for i, label in enumerate(("[k]", "[v]"))
    )
    return [query, key, value]
