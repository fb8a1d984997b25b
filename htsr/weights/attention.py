"""Split fused query, key and value weights, and cut attention weights into heads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from htsr.weights.parts import Part

# Names of weights that fuse query, key and value: those of torch, timm, GPT-2, GPT-NeoX and Falcon, MPT and ModernBERT,
# InternLM2, Baichuan, diffusers and GGUF.
FUSED = re.compile(
    r"(^|.*[._])(in_proj_weight|attn\.in_proj|attention\.self\.in_proj|qkv|qkv_proj|qkv_linear|att_proj|query_key_value|c_attn|w_?qkv|"
    r"w_pack|to_qkv)(\.weight)?$",
    re.I,
)
# Names of weights that fuse only key and value.
FUSED_KV = re.compile(r"(^|.*[._])(kv|kv_proj|to_kv)(\.weight)?$", re.I)
# Names of weights that are not fused. A head is a block of rows in query, key and value, and of columns in the output.
HEADS_IN_ROWS = re.compile(r"(?:^|.*[._])(?:to_|w)?([qkv])(?:_proj|uery|ey|alue)?(?:_weight|\.weight)?$", re.I)
HEADS_IN_COLUMNS = re.compile(r"(^|.*[._])(o_proj|out_proj|to_out\.0|wo|attn\.c_proj|attn_output)(\.weight)?$", re.I)
# Fused weights that store query, key and value head by head (or group by group), by transformers' ``model_type``. Other weights
# of these models, such as ``qkv`` of a vision tower beside InternLM2, are blocks of query, key and value.
BY_HEAD = {
    "bloom": "query_key_value",
    "chatglm": "query_key_value",
    "deberta": "in_proj",
    "falcon": "query_key_value",
    "gpt_bigcode": "c_attn",
    "gpt_neox": "query_key_value",
    "gpt_neox_japanese": "query_key_value",
    "internlm2": "wqkv",
    "minimax": "qkv_proj",
    "persimmon": "query_key_value",
}
# Names that models with different layouts share: only a ``model_type`` tells the layout.
AMBIGUOUS = re.compile(
    r"(^|[._])(query_key_value|attention\.wqkv|in_proj_qkv|attention\.self\.in_proj)(\.weight)?$|(^|\.)h\.\d+\.attn\.qkv_proj"
)
# Megatron always stores linear_qkv group by group, but only a configuration tells the groups.
MEGATRON = re.compile(r"(^|\.)linear_qkv(\.weight)?$")
# CodeGen was trained on four devices: its fused weight has one block for each, and a block holds q, v, k.
CODEGEN_BLOCKS = 4
# Sections of a composite configuration that describe the language model, and those of DBRX and MPT that describe attention.
TEXT_CONFIGS = ("text_config", "llm_config")
MAX_NESTING = 4


@dataclass(frozen=True)
class Heads:
    """What a configuration says about attention heads; None where it says nothing.

    Attributes:
        num: Number of query heads.
        num_kv: Number of key heads, and of value heads; smaller than ``num`` in grouped-query attention.
        size: Number of rows in one head.
        model_type: Value of transformers' ``model_type``; empty if unknown.
        multi_query: Whether all heads of Falcon, GPTBigCode or ChatGLM share one key and value (or a few of them).
    """

    num: int | None = None
    num_kv: int | None = None
    size: int | None = None
    model_type: str = ""
    multi_query: bool = False

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Heads":
        """Read the heads from a configuration that uses the keys of transformers or of GGUF."""
        for _ in range(MAX_NESTING):
            config = next((inner for key in TEXT_CONFIGS if isinstance(inner := config.get(key), Mapping)), config)
        attention = config.get("attn_config")
        if isinstance(attention, Mapping):
            config = {**attention, **config}
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
            "kv_n_heads",
            "num_query_groups",
            "multi_query_group_num",
            f"{architecture}.attention.head_count_kv",
        )
        size = _first(config, "head_dim", "kv_channels", f"{architecture}.attention.key_length")
        hidden = _first(config, "hidden_size", "n_embd", "d_model", f"{architecture}.embedding_length")
        model_type = config.get("model_type")
        model_type = model_type if isinstance(model_type, str) else ""
        new_falcon = model_type == "falcon" and config.get("new_decoder_architecture") is True
        multi_query = bool(config.get("multi_query") or config.get("multi_query_attention")) and not new_falcon
        if model_type in ("falcon", "gpt_bigcode") and multi_query:
            num_kv = 1
        elif (model_type == "falcon" and not new_falcon) or model_type == "gpt_bigcode":
            num_kv = num
        if size is None and num and hidden and hidden % num == 0:
            size = hidden // num
        return cls(num, num_kv or num, size, model_type, multi_query)

    def by_head(self, key: str) -> bool:
        """Return whether this fused weight stores query, key and value head by head."""
        if MEGATRON.search(key):
            return True
        name = BY_HEAD.get(self.model_type)
        return name is not None and key.removesuffix(".weight").endswith(name) and not self.multi_query


def _first(config: Mapping[str, object], *names: str) -> int | None:
    """Return the first of these settings that is a positive integer."""
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def fused_parts(key: str, weight: Part, heads: Heads) -> tuple[list[Part], str]:
    """Cut a fused attention weight into ``[q]``, ``[k]`` and ``[v]``, or return it whole; the second value is a warning."""
    only_kv = FUSED_KV.fullmatch(key) is not None
    if len(weight.shape) != 2 or not (only_kv or FUSED.fullmatch(key)):
        return [weight], ""
    if only_kv and re.search(r"(^|[._])linear_kv(\.weight)?$", key):  # Megatron's cross-attention
        return [weight], "key and value are stored head by head, and the heads are unknown: analysed as one matrix"
    query, kv = (heads.num or 0) * (heads.size or 0), (heads.num_kv or 0) * (heads.size or 0)
    # The configuration decides which dimension is the output; without one, the longer dimension is (GPT-2 stores (in, out)).
    by_config = query > 0 and query + 2 * kv in weight.shape
    stored = weight
    if weight.shape[0] != query + 2 * kv if by_config else weight.shape[0] < weight.shape[1]:
        weight = weight.permute((1, 0))
    rows, columns = weight.shape
    # GPT-2's cross-attention stores q separately
    if only_kv or (rows == 2 * columns and "cross" in key):
        if rows == 2 * kv or rows == 2 * columns:
            return _rows(weight, {"k": rows // 2, "v": rows // 2}), ""
        return [stored], "whether this weight fuses key and value is unknown: analysed as one matrix"
    if heads.by_head(key):
        if not by_config or (heads.num or 0) % (heads.num_kv or 1):
            return [
                stored
            ], "query, key and value are stored head by head, and the heads are unknown: analysed as one matrix"
        return _by_head(weight, heads), ""
    if heads.model_type == "codegen" and "qkv_proj" in key:
        if rows % (3 * CODEGEN_BLOCKS):
            return [stored], "the sizes of the fused query, key and value are unknown: analysed as one matrix"
        return _codegen(weight), ""
    if AMBIGUOUS.search(key) and not heads.model_type:
        note = "the order of the fused query, key and value is unknown without a config.json: analysed as one matrix"
        return [stored], note
    if by_config:
        return _rows(weight, {"q": query, "k": kv, "v": kv}), ""
    if rows == 3 * columns or (rows % 3 == 0 and key.endswith("in_proj_weight")):
        return _rows(weight, dict.fromkeys("qkv", rows // 3)), ""
    if columns < rows < 3 * columns and (rows - columns) % 2 == 0:
        kv = (rows - columns) // 2
        note = "query, key and value split by shape, assuming that the query is as wide as the input"
        return _rows(weight, {"q": columns, "k": kv, "v": kv}), note
    return [stored], "the sizes of the fused query, key and value are unknown: analysed as one matrix"


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


def _by_head(weight: Part, heads: Heads) -> list[Part]:
    """Split a fused weight that stores query, key and value head by head, or group by group."""
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


def _codegen(weight: Part) -> list[Part]:
    """Split CodeGen's fused weight, which stores a block of queries, values and keys for each of four devices."""
    rows, columns = weight.shape
    blocks = weight.reshape(CODEGEN_BLOCKS, 3, rows // 3 // CODEGEN_BLOCKS, columns)
    places = {"[q]": 0, "[k]": 2, "[v]": 1}
    return [blocks.select(1, place, label).reshape(rows // 3, columns) for label, place in places.items()]
