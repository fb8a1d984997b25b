"""Split fused query, key and value weights, and cut attention weights into heads."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
# Key and value of multi-head latent attention, behind their common projection to a low rank (DeepSeek-V2 and its successors).
LATENT_KV = re.compile(r"(^|.*[._])kv_b_proj(\.weight)?$")
# Names that mean something else in one family of models: DeepSeek-V4 has one vector for key and value.
NOT_FUSED = {"deepseek_v4": "kv_proj"}
# Models whose q_proj also makes a gate for the output of each head.
GATED_QUERY = re.compile(r"(qwen3_next|qwen3_5|qwen4)(_\w+)?")
# Settings that give the sizes in these layouts.
SIZES = (
    "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_num_key_heads", "linear_key_head_dim",
    "linear_num_value_heads", "linear_value_head_dim",
)  # fmt: skip


@dataclass(frozen=True)
class Heads:
    """What a configuration says about attention heads; None where it says nothing.

    Attributes:
        num: Number of query heads.
        num_kv: Number of key heads, and of value heads; smaller than ``num`` in grouped-query attention.
        size: Number of rows in one head.
        model_type: Value of transformers' ``model_type``; empty if unknown.
        multi_query: Whether all heads of Falcon, GPTBigCode or ChatGLM share one key and value (or a few of them).
        sizes: Those of ``SIZES`` that the configuration gives.
    """

    num: int | None = None
    num_kv: int | None = None
    size: int | None = None
    model_type: str = ""
    multi_query: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Heads":
        """Read the heads from a configuration that uses the keys of transformers or of GGUF."""
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
        sizes = {name: value for name in SIZES if (value := _first(config, name)) is not None}
        return cls(num, num_kv or num, size, model_type, multi_query, sizes)

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


@dataclass(frozen=True)
class Layout:
    """How a weight stacks several: ``groups`` times the same sequence of parts, each with its number of rows."""

    groups: int
    parts: Sequence[tuple[str, int]]

    @property
    def rows(self) -> int:
        """The number of rows of the stack."""
        return self.groups * sum(size for _, size in self.parts)

    def cut(self, weight: Part) -> list[Part]:
        """Return the parts, in the order q, k, v and then the others."""
        columns, start, found = weight.shape[1], 0, {}
        stack = weight if self.groups == 1 else weight.reshape(self.groups, self.rows // self.groups, columns)
        for name, size in self.parts:
            part = stack.narrow(len(stack.shape) - 2, start, size, f"[{name}]")
            found[name] = part.reshape(self.groups * size, columns)
            start += size
        return [found[name] for name in sorted(found, key=lambda name: ("qkv".find(name) % 4, name))]


def _layout_of_its_own(key: str, heads: Heads) -> Layout | None:
    """Return the layout of a weight whose name and configuration leave no doubt; None if there is some."""
    name = key.removesuffix(".weight").rpartition(".")[2]
    sizes, num = heads.sizes, heads.num or 0
    nope, rope, value = (sizes.get(name, 0) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    if name == "kv_b_proj" and num and nope and value:  # the rotated part of the key comes from another weight
        return Layout(num, [("k", nope), ("v", value)])
    if name == "q_gate_proj" and num and nope and value:
        return Layout(num, [("q", nope + rope), ("gate", value)])
    if name == "q_proj" and num and heads.size and GATED_QUERY.fullmatch(heads.model_type):
        return Layout(num, [("q", heads.size), ("gate", heads.size)])
    linear = [sizes.get(name, 0) for name in SIZES[3:]]
    if name in ("in_proj_qkv", "in_proj_qkvz") and all(linear):
        keys, key_size, values, value_size = linear
        if name == "in_proj_qkv":
            return Layout(1, [("q", keys * key_size), ("k", keys * key_size), ("v", values * value_size)])
        if values % keys == 0:
            own = values // keys * value_size
            return Layout(keys, [("q", key_size), ("k", key_size), ("v", own), ("z", own)])
    return None


def fused_parts(key: str, weight: Part, heads: Heads) -> tuple[list[Part], str]:
    """Cut a fused attention weight into ``[q]``, ``[k]`` and ``[v]``, or return it whole; the second value is a warning."""
    only_kv = FUSED_KV.fullmatch(key) is not None
    named = NOT_FUSED.get(heads.model_type)
    if len(weight.shape) != 2 or (named is not None and named in key):
        return [weight], ""
    layout = _layout_of_its_own(key, heads)
    if layout is not None and layout.rows in weight.shape:
        return layout.cut(weight if weight.shape[0] == layout.rows else weight.permute((1, 0))), ""
    if LATENT_KV.fullmatch(key) or (layout is not None and "in_proj_qkv" in key):
        return [weight], "what it fuses is stored head by head, and the heads are unknown: analysed as one matrix"
    if not (only_kv or FUSED.fullmatch(key)):
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
            return Layout(1, [("k", rows // 2), ("v", rows // 2)]).cut(weight), ""
        return [stored], "whether this weight fuses key and value is unknown: analysed as one matrix"
    if heads.by_head(key):
        if query and rows == 3 * query:  # MiniMax has fewer key heads only in its layers without this weight
            return Layout(heads.num or 1, [(part, heads.size or 1) for part in "qkv"]).cut(weight), ""
        if not by_config or (heads.num or 0) % (heads.num_kv or 1):
            return [
                stored
            ], "query, key and value are stored head by head, and the heads are unknown: analysed as one matrix"
        num, num_kv, size = heads.num or 1, heads.num_kv or 1, heads.size or 1
        return Layout(num_kv, [("q", num // num_kv * size), ("k", size), ("v", size)]).cut(weight), ""
    if heads.model_type == "codegen" and "qkv_proj" in key:
        if rows % (3 * CODEGEN_BLOCKS):
            return [stored], "the sizes of the fused query, key and value are unknown: analysed as one matrix"
        block = rows // (3 * CODEGEN_BLOCKS)
        return Layout(CODEGEN_BLOCKS, [("q", block), ("v", block), ("k", block)]).cut(weight), ""
    if AMBIGUOUS.search(key) and not heads.model_type:
        note = "the order of the fused query, key and value is unknown without a config.json: analysed as one matrix"
        return [stored], note
    if by_config:
        return Layout(1, [("q", query), ("k", kv), ("v", kv)]).cut(weight), ""
    if rows == 3 * columns or (rows % 3 == 0 and key.endswith("in_proj_weight")):
        return Layout(1, [(part, rows // 3) for part in "qkv"]).cut(weight), ""
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
