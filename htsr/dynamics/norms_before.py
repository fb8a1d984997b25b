"""Find by name the norm in front of an attention, and the norms of its queries and keys."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Norms in front of attention, in models with pre-norm. torch's own encoder layer calls its first norm norm1, too, but applies it
# after the attention by default.
BEFORE = (
    "input_layernorm", "ln_1", "ln1", "ln_attn", "attn_norm", "attention_norm", "norm_attention", "norm_attn", "attn_ln",
    "layernorm_before", "layer_norm1", "pre_attention_layernorm", "norm1",
)  # fmt: skip
# The norm in front of BERT's attention is the last one of the block before, or that of the embeddings.
BERT = re.compile(r"(.*?)((?:encoder\.)?layer\.)(\d+)\.attention\.self\.")
# Keys of a cross-attention come from another sequence, and its queries behind a norm that differs from model to model.
CROSS = re.compile(r"multihead_attn|cross|encoder_attn|encdec|enc_dec", re.IGNORECASE)
QUERY_KEY = ("norm", "layernorm", "ln")
# Models that store gains less 1.
LESS_ONE = re.compile(r"gemma[23]?(_text)?|recurrent_gemma|nemotron|qwen3_next|qwen3_5\w*")


@dataclass(frozen=True)
class Norm:
    """What a norm does after normalising: ``gain * n + shift``, where ``||n||`` is at most the root of its length."""

    name: str
    gain: Tensor
    shift: Tensor

    def largest(self, size: int, head: int) -> float:
        """Return the largest norm of a head of some size behind the norm, which treats one head or all heads together."""
        whole = len(self.gain)
        own = slice(head * size, (head + 1) * size) if whole > size else slice(None)
        return whole**0.5 * float(self.gain[own].abs().max()) + float(self.shift[own].norm())


def norm_before(attention: str, width: int, vectors: Mapping[str, Tensor], config: Mapping[str, object]) -> Norm | None:
    """Return the norm that made the inputs of an attention, found by name and length.

    None if there is none of a known name, and for a cross-attention.
    """
    if CROSS.search(attention):
        return None
    if bert := BERT.match(attention):
        start, layers, number = bert.group(1), bert.group(2), int(bert.group(3))
        before = f"{start}{layers}{number - 1}.output.LayerNorm" if number else f"{start}embeddings.LayerNorm"
        return _norm(before, width, vectors, config)
    parts = attention.rstrip("._").split(".")
    for length in range(len(parts), max(-1, len(parts) - 4), -1):
        for name in BEFORE:
            if name == "norm1" and "self_attn" in parts:
                continue
            path = ".".join([*parts[:length], name])
            if found := _norm(path, width, vectors, config):
                return found
    return None


def query_key_norms(
    attention: str, vectors: Mapping[str, Tensor], config: Mapping[str, object]
) -> tuple[Norm, Norm] | None:
    """Return the norms of queries and keys inside an attention; None if it has none."""
    inside = attention if attention.endswith((".", "_")) else attention.rpartition(".")[0] + "."
    for end in QUERY_KEY:
        found = [_norm(f"{inside}{letter}_{end}", None, vectors, config) for letter in "qk"]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def _norm(path: str, width: int | None, vectors: Mapping[str, Tensor], config: Mapping[str, object]) -> Norm | None:
    """Return the norm of a module path, if it has gains (of this length)."""
    gain = vectors.get(f"{path.lstrip('.')}.weight")
    if gain is None or (width is not None and len(gain) != width):
        return None
    if LESS_ONE.fullmatch(str(config.get("model_type", ""))):
        gain = gain + 1
    shift = vectors.get(f"{path.lstrip('.')}.bias")
    return Norm(path.lstrip("."), gain, torch.zeros_like(gain) if shift is None else shift)
