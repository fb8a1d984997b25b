"""Split fused query, key and value weights, and cut attention weights into heads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from htsr.weights.parts import Part

# Names of weights that fuse query, key and value: those of torch, timm, GPT-2, GPT-NeoX and Falcon, MPT and ModernBERT,
# InternLM2, Baichuan, diffusers and GGUF.
FUSED = re.compile(
    r"(^|.*[._])(in_proj_weight|attn\.in_proj|qkv|qkv_proj|query_key_value|c_attn|w_?qkv|w_pack|to_qkv)(\.weight)?$",
    re.I,
)
# Names of weights that fuse only key and value.
FUSED_KV = re.compile(r"(^|.*[._])(kv|kv_proj|to_kv)(\.weight)?$", re.I)
# Names of weights that are not fused. A head is a block of rows in query, key and value, and of columns in the output.
HEADS_IN_ROWS = re.compile(r"(?:^|.*[._])(?:to_|w)?([qkv])(?:_proj|uery|ey|alue)?(?:_weight|\.weight)?$", re.I)
HEADS_IN_COLUMNS = re.compile(r"(^|.*[._])(o_proj|out_proj|to_out\.0|wo|attn\.c_proj|attn_output)(\.weight)?$", re.I)
# Values of transformers' ``model_type`` whose fused weights store query, key and value head by head.
INTERLEAVED = {"gpt_neox", "gpt_neox_japanese", "bloom", "persimmon", "internlm2", "chatglm"}


@dataclass(frozen=True)
class Heads:
    """What a configuration says about attention heads; None where it says nothing.

    Attributes:
        num: Number of query heads.
        num_kv: Number of key heads, and of value heads; smaller than ``num`` in grouped-query attention.
        size: Number of rows in one head.
        interleaved: Whether a fused weight stores query, key and value head by head; None if unknown.
    """

    num: int | None = None
    num_kv: int | None = None
    size: int | None = None
    interleaved: bool | None = None

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Heads":
        """Read the heads from a configuration that uses the keys of transformers or of GGUF."""
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
    """Return the first of these settings that is a positive integer."""
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def fused_parts(key: str, weight: Part, heads: Heads) -> tuple[list[Part], str]:
    """Cut a fused attention weight into ``[q]``, ``[k]`` and ``[v]``, or return it whole; the second value is a warning."""
    if len(weight.shape) != 2 or not (FUSED.fullmatch(key) or FUSED_KV.fullmatch(key)):
        return [weight], ""
    query, kv = (heads.num or 0) * (heads.size or 0), (heads.num_kv or 0) * (heads.size or 0)
    # The configuration decides which dimension is the output; without one, the longer dimension is (GPT-2 stores (in, out)).
    by_config = query and query + 2 * kv in weight.shape
    if weight.shape[0] != query + 2 * kv if by_config else weight.shape[0] < weight.shape[1]:
        weight = weight.permute((1, 0))
    rows, columns = weight.shape
    # GPT-2's cross-attention stores q separately
    if FUSED_KV.fullmatch(key) or (rows == 2 * columns and "cross" in key):
        if rows % 2:
            return [weight], "fused key and value with an odd number of rows, analysed as one matrix"
        return _rows(weight, {"k": rows // 2, "v": rows // 2}), ""
    if heads.interleaved and by_config:
        return _interleaved(weight, heads), ""
    if heads.interleaved is None and re.search(r"query_key_value|wqkv", key) and "attention" in key:
        note = "the order of the fused query, key and value is unknown without a config.json: analysed as one matrix"
        return [weight], note
    if by_config:
        return _rows(weight, {"q": query, "k": kv, "v": kv}), ""
    if rows == 3 * columns or (rows % 3 == 0 and key.endswith("in_proj_weight")):
        return _rows(weight, dict.fromkeys("qkv", rows // 3)), ""
    if columns < rows < 3 * columns and (rows - columns) % 2 == 0:
        kv = (rows - columns) // 2
        note = "query, key and value split by shape, assuming that the query is as wide as the input"
        return _rows(weight, {"q": columns, "k": kv, "v": kv}), note
    return [weight], "the sizes of the fused query, key and value are unknown: analysed as one matrix"


def head_parts(key: str, weight: Part, heads: Heads) -> list[Part]:
    """Cut an attention weight into its heads, ``[0]``, ``[1]``, ...; return any other weight whole."""
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
    """Cut the rows of a weight into consecutive parts of these sizes."""
    parts, start = [], 0
    for label, size in sizes.items():
        parts.append(weight.narrow(0, start, size, f"[{label}]"))
        start += size
    return parts


def _interleaved(weight: Part, heads: Heads) -> list[Part]:
    """Split a fused weight that stores query, key and value head by head."""
    assert heads.num is not None
    assert heads.num_kv is not None
    assert heads.size is not None
    # Rows are (kv heads, queries of the group + key + value, size). A group has one query in GPT-NeoX and several in Falcon.
    columns, group = weight.shape[1], heads.num // heads.num_kv
    by_group = weight.reshape(heads.num_kv, group + 2, heads.size, columns)
    query = by_group.narrow(1, 0, group, "[q]").reshape(heads.num * heads.size, columns)
    key, value = (
        by_group.select(1, group + i, label).reshape(heads.num_kv * heads.size, columns)
        for i, label in enumerate(("[k]", "[v]"))
    )
    return [query, key, value]
