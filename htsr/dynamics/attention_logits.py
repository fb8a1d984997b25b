"""How large attention logits can get, from weights alone.

Shapes: h rows of a head, d columns (the width of the model).
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from htsr.dynamics.norms_before import Norm, norm_before, query_key_norms
from htsr.errors import InputError
from htsr.weights.attention import HEADS_IN_ROWS
from htsr.weights.inventory import Layer, Listing, StoredTensor
from htsr.weights.names import without_wrappers
from htsr.weights.source import Source, list_tensors
from htsr.weights.splitting import Splitting, split_into_layers

# MuonClip rescales the query and key weights of a head whose largest logit in a batch exceeds this (arXiv 2507.20534).
THRESHOLD = 100.0
COLUMNS = {
    "attention": "str", "head": "Int64", "key_head": "Int64", "norm_q": "float64", "norm_k": "float64",
    "bound": "float64", "how": "str", "input_norm": "str", "may_clip": "bool",
}  # fmt: skip
HEAD = re.compile(r"(.+)\[(\d+)\]")
PART = re.compile(r"(.+)\[([qkv])\]")
# A model with a table of positions adds them to its inputs, so that its logits do not rotate with the distance.
POSITIONS = re.compile(r"(^|[._])(wpe|position_embeddings?|embed_positions|pos_embed|position_embd)(\.weight)?$")
# T5 and its family do not divide logits by anything.
UNSCALED = re.compile(r"(mt5|umt5|t5|longt5|switch_transformers)")


def attention_logits(source: Any, *, config: Mapping[str, object] | None = None) -> pd.DataFrame:
    """Bound the attention logits of each head over all inputs, and name the heads that QK-clip may touch.

    A logit is ``q . k / sqrt(h)`` for heads with h rows. With inputs ``x = g * n + b`` that a norm made, where ``||n||`` is at
    most ``sqrt(d)``, and with biases ``b_q`` and ``b_k``, no logit is larger than

        (sqrt(d) ||W_Q diag(g)||_2 + ||W_Q b + b_q||) (sqrt(d) ||W_K diag(g)||_2 + ||W_K b + b_k||) / sqrt(h)

    RoPE keeps the bound, since it rotates q and k. Without RoPE, ``||diag(g) W_Q^T W_K diag(g)||_2`` is sharper than the product
    of norms. Where q and k have norms of their own, their gains alone bound them. Watch how the bound grows: the QK-clip of
    MuonClip, with its threshold of 100 (arXiv 2507.20534), cannot touch a head whose bound is lower, and may touch the others.

    Args:
        source: A model, as for ``analyze``. Or a ``History`` of a ``Monitor(per_head=True)``, or an ``Analysis`` that was made
            with ``per_head=True``, whose rows know the norms of heads: then inputs count as having a root mean square of 1, and
            biases and gains as absent, so only the growth is of use.
        config: Settings that the source does not tell, by transformers' names: ``{"num_attention_heads": 8,
            "num_key_value_heads": 2, "rope_theta": 10000.0}``.

    Returns:
        One row for each query head (and ``step``, for a history): ``attention``, the module; ``head`` and the ``key_head`` that
        it reads; ``norm_q`` and ``norm_k``, spectral norms with the gains of the norm before; the ``bound``; ``how`` it was
        found, ``norms``, ``product`` (without RoPE) or ``query and key norms``; ``input_norm``, the norm whose gains count,
        empty if none was found by its name and inputs count as having a root mean square of 1; ``may_clip``, whether the bound
        is above 100.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If the source cannot be read, or no heads are known.

    Notes:
        The gains count inside the spectral norm, ``||W diag(g)||_2 <= ||W||_2 max |g|``. The product is used only if the source
        has a configuration that speaks of no rotation, and a table of positions. What a model adds to its logits, such as
        ALiBi or relative positions, is not counted, nor is a cap on logits. The norm before is found by its name: that of a
        block with pre-norm, or of BERT's block before.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> attention = nn.MultiheadAttention(32, 2)
        >>> attention_logits(attention)[["attention", "head", "bound", "how"]].round(1)
                attention  head  bound    how
        0  in_proj_weight     0   10.1  norms
        1  in_proj_weight     1   10.1  norms
    """
    rows_of = getattr(source, "details", None)
    if isinstance(rows_of, pd.DataFrame):
        return _of_rows(rows_of)
    listing = list_tensors(source)
    if config is not None:
        tensors = [replace(stored, config={**(stored.config or {}), **config}) for stored in listing.tensors]
        listing = replace(listing, tensors=tensors, config={**listing.config, **config})
    vectors = _vectors(source, listing)
    layers = split_into_layers(listing, Splitting("pool", per_head=True)).layers
    biases = {layer.name: layer for layer in _bias_layers(listing, vectors)}
    settings = _Settings.of(listing)
    rows = []
    for attention, queries, keys in _attentions(layers, lambda layer: layer.name):
        norm = norm_before(attention, queries[0].shape[1], vectors, settings.config)
        own = query_key_norms(attention, vectors, settings.config)
        for head, query in enumerate(queries):
            number = head * len(keys) // len(queries)
            q, k = (_Side.of(layer, norm, biases.get(layer.name)) for layer in (query, keys[number]))
            bound, how = _bound(q, k, head, number, own, settings)
            rows.append(
                {
                    "attention": attention.rstrip("._"), "head": head, "key_head": number, "norm_q": q.norm, "norm_k": k.norm,
                    "bound": bound, "how": how, "input_norm": "" if norm is None else norm.name, "may_clip": bound > THRESHOLD,
                }
            )  # fmt: skip
    if not rows:
        raise InputError(
            f"{listing.source}: found no query and key weights with a known number of heads: pass "
            'config={"num_attention_heads": ...} (and "num_key_value_heads", if there are fewer of them)'
        )
    return _frame(rows, COLUMNS)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as a table with these columns."""
    return pd.DataFrame({name: pd.array([row[name] for row in rows], dtype=dtype) for name, dtype in columns.items()})


class _Settings(NamedTuple):
    """What a configuration says about logits."""

    config: Mapping[str, object]
    rotates: bool
    scale: float | None  # None for 1 / sqrt(h)

    @classmethod
    def of(cls, listing: Listing) -> "_Settings":
        config = next((stored.config for stored in listing.tensors if stored.config), listing.config)
        text = config.get("text_config")
        config = {**config, **text} if isinstance(text, Mapping) else config
        rotary = any(re.search("rope|rotary", str(name)) and value is not None for name, value in config.items())
        fixed = bool(config) and any(POSITIONS.search(stored.key) for stored in listing.tensors)
        scale = None
        if UNSCALED.fullmatch(str(config.get("model_type", ""))):
            scale = 1.0
        elif isinstance(multiplier := config.get("attention_multiplier"), float):
            scale = multiplier
        elif isinstance(size := config.get("query_pre_attn_scalar"), int | float):
            scale = size**-0.5
        return cls(config, rotary or not fixed, scale)


@dataclass(frozen=True)
class _Side:
    """The query or the key of a head, as a map of what the norm before it normalised: ``W n + bias``."""

    W_hd: Tensor
    bias_h: Tensor
    norm: float

    @classmethod
    def of(cls, layer: Layer, norm: Norm | None, bias: Layer | None) -> "_Side":
        W = layer.load().detach().to("cpu", torch.float64)
        b = torch.zeros(len(W), dtype=torch.float64) if bias is None else bias.load()[:, 0].to("cpu", torch.float64)
        if norm is not None:
            b = b + W @ norm.shift
            W = W * norm.gain
        return cls(W, b, float(torch.linalg.matrix_norm(W, 2)))

    @property
    def largest(self) -> float:
        """The largest norm of q or k."""
        return math.sqrt(self.W_hd.shape[1]) * self.norm + float(self.bias_h.norm())


def _bound(
    q: _Side, k: _Side, head: int, key_head: int, own: tuple[Norm, Norm] | None, settings: _Settings
) -> tuple[float, str]:
    """Return the bound of a head's logits, and how it was found."""
    h, d = q.W_hd.shape
    scale = h**-0.5 if settings.scale is None else settings.scale
    if own is not None:
        of_q, of_k = (norm.largest(h, number) for norm, number in zip(own, (head, key_head), strict=True))
        return scale * of_q * of_k, "query and key norms"
    if settings.rotates:
        return scale * q.largest * k.largest, "norms"
    product = d * float(torch.linalg.matrix_norm(q.W_hd.mT @ k.W_hd, 2))
    product += math.sqrt(d) * float((q.W_hd.mT @ k.bias_h).norm() + (k.W_hd.mT @ q.bias_h).norm())
    return scale * (product + abs(float(q.bias_h @ k.bias_h))), "product"


def _attentions(items: Iterable[Any], name: Any) -> list[tuple[str, list[Any], list[Any]]]:
    """Return each attention with its query heads and its key heads, from items whose names end in the number of a head."""
    found: dict[str, dict[str, dict[int, Any]]] = defaultdict(lambda: {"q": {}, "k": {}, "v": {}})
    for item in items:
        head = HEAD.fullmatch(name(item))
        if head is None:
            continue
        base, number = head.group(1), int(head.group(2))
        if part := PART.fullmatch(base):
            found[part.group(1)][part.group(2)][number] = item
        elif named := HEADS_IN_ROWS.fullmatch(base):
            found[base[: named.start(1)]][named.group(1).lower()][number] = item
    kept = []
    for attention, sides in found.items():
        queries, keys = ([of[number] for number in sorted(of)] for of in (sides["q"], sides["k"]))
        if queries and keys and len(queries) % len(keys) == 0:
            kept.append((attention, queries, keys))
    return kept


def _vectors(source: Source, listing: Listing) -> dict[str, Tensor]:
    """Return the tensors of one dimension of a source by name: gains and biases."""
    if isinstance(source, nn.Module):
        named = {without_wrappers(name): p.detach() for name, p in source.named_parameters() if p.ndim == 1}
        return {name: p.to("cpu", torch.float64) for name, p in named.items()}
    return {
        stored.key: stored.read(None).to("cpu", torch.float64)
        for stored in listing.tensors
        if len(stored.shape) == 1 and stored.reason is None and "float" in stored.dtype
    }


def _bias_layers(listing: Listing, vectors: Mapping[str, Tensor]) -> list[Layer]:
    """Return layers whose columns are the biases of the weights, cut into queries, keys and heads as the weights are."""

    def with_bias(stored: StoredTensor) -> StoredTensor | None:
        bias = vectors.get(f"{stored.key.removesuffix('weight')}bias") if stored.key.endswith("weight") else None
        if bias is None or len(stored.shape) != 2 or stored.reason is not None or len(bias) not in stored.shape:
            return None
        columns = bias[:, None] if len(bias) == stored.shape[0] else bias[None]  # GPT-2 stores (in, out)
        expanded = columns.expand(stored.shape)
        return replace(stored, read=lambda rows: expanded if rows is None else expanded[rows], identity=None)

    found = [biased for stored in listing.tensors if (biased := with_bias(stored)) is not None]
    return split_into_layers(replace(listing, tensors=found), Splitting("pool", per_head=True)).layers


def _of_rows(details: pd.DataFrame) -> pd.DataFrame:
    """Return bounds from rows that hold spectral norms, for inputs whose root mean square is 1."""
    if "quantity" in details:
        details = details[details["quantity"] == "weights"]
    steps = details["step"] if "step" in details else pd.Series(0, index=details.index)
    rows = []
    for step, of in details.groupby(steps, sort=True):
        for attention, queries, keys in _attentions(of.to_dict("records"), lambda row: row["name"]):
            for head, query in enumerate(queries):
                number = head * len(keys) // len(queries)
                norm_q, norm_k = (math.sqrt(row["spectral_norm"]) for row in (query, keys[number]))
                bound = norm_q * norm_k * query["N"] / math.sqrt(query["M"])
                rows.append(
                    {
                        "step": step, "attention": attention.rstrip("._"), "head": head, "key_head": number,
                        "norm_q": norm_q, "norm_k": norm_k, "bound": bound, "how": "norms", "input_norm": "",
                        "may_clip": bound > THRESHOLD,
                    }
                )  # fmt: skip
    if not rows:
        raise InputError(
            "found no rows of query and key heads: use analyze(..., per_head=True) or Monitor(..., per_head=True), on a model "
            "whose number of heads is known"
        )
    return _frame(rows, {"step": "int64", **COLUMNS} if "step" in details else COLUMNS)
