"""List the weights of a PEFT directory: the change that a LoRA adapter makes to each matrix, and the merged matrices.

Reference: ``peft.tuners.lora.layer``, ``get_delta_weight`` and ``merge``; Hu et al. 2021, https://arxiv.org/abs/2106.09685,
section 4.1; rank-stabilised scaling, https://arxiv.org/abs/2312.03732; DoRA, https://arxiv.org/abs/2402.09353, equation 5.
A change of rank r has at most r eigenvalues above zero, so its alpha rests on few values.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from htsr.errors import InputError
from htsr.weights.inventory import Listing, ReadRows, StoredTensor
from htsr.weights.readers.formats import SAFETENSORS, TORCH
from htsr.weights.readers.shards import choose_shards

ADAPTER_CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<path>.*)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.default)?(\.weight)?")


def read_peft(path: Path, base: Listing | None = None) -> Listing:
    """List the change that an adapter makes to each weight as ``[delta]``, after the merged weights if there is a base."""
    # Adapters other than LoRA are listed by the tensors that they store.
    config = _config(path)
    listing = (SAFETENSORS if choose_shards(path, "safetensors") else TORCH).list_tensors(path)
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        note = f"stored by a {kind} adapter: a factor of the change that it makes, not the change itself"
        return replace(listing, tensors=[replace(stored, note=note) for stored in listing.tensors])
    factors: dict[str, dict[str, StoredTensor]] = {}
    others: list[StoredTensor] = []
    for stored in listing.tensors:
        key = stored.key.removeprefix(PREFIX)
        found = FACTOR.fullmatch(key)
        if found is not None and len(stored.shape) >= 2:
            factors.setdefault(found["path"], {})[found["factor"]] = stored
        elif key.endswith(("lora_magnitude_vector", "lora_magnitude_vector.weight")):
            factors.setdefault(key.split(".lora_magnitude")[0], {})["magnitude"] = stored
        else:
            others.append(replace(stored, key=key.replace(".modules_to_save.default", "").replace(".base_layer", "")))
    deltas = {name: _delta(path, name, found, config) for name, found in factors.items()}
    changes = [
        StoredTensor(f"{name}.weight", delta.shape, delta.dtype, delta, label="[delta]", note=delta.note)
        for name, delta in deltas.items()
    ]
    if base is None:
        return Listing(str(path), [*others, *changes], listing.config)
    return Listing(f"{path} on {base.source}", [*_merged(path, base, deltas, others), *changes], base.config)


def _config(path: Path) -> Mapping[str, object]:
    """Return the configuration of an adapter."""
    try:
        config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path / ADAPTER_CONFIG}: expected a JSON object, got {type(err).__name__}: {err}") from err
    if not isinstance(config, dict):
        raise InputError(f"{path / ADAPTER_CONFIG}: expected a JSON object, got a {type(config).__name__}")
    return config


@dataclass(frozen=True)
class Delta:
    """The change that LoRA makes to one weight; calling it computes the change in float64.

    Attributes:
        read_a: Reads A, ``(r, in, *kernel)``.
        read_b: Reads B, ``(out, r, *ones)``.
        read_magnitude: Reads the norms that DoRA gives the rows of the merged weight; None for LoRA.
        scaling: The factor of ``B A``.
        transposed: Whether the weight is stored ``(in, out)``, as embedding tables and GPT-2's matrices are.
        shape: Shape of the weight as stored.
        dtype: Type of A and B.
        note: Rank and scaling, for the user.
    """

    read_a: ReadRows = field(repr=False)
    read_b: ReadRows = field(repr=False)
    read_magnitude: ReadRows | None = field(repr=False)
    scaling: float
    transposed: bool
    shape: tuple[int, ...]
    dtype: str
    note: str

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return ``B A`` times the scaling in the shape of the weight, or some rows of it."""
        a, b = self.read_a(None).to(torch.float64), self.read_b(None).to(torch.float64)
        delta = self.scaling * (b.flatten(1) @ a.flatten(1))
        delta = delta.mT if self.transposed else delta.reshape(self.shape)
        return delta if rows is None else delta[rows]


def _delta(path: Path, name: str, found: Mapping[str, StoredTensor], config: Mapping[str, object]) -> Delta:
    """Return the change of one weight from its factors and the configuration."""
    if not {"A", "B"} <= set(found):
        raise InputError(f"{path}: expected lora_A and lora_B for {name}, got only {', '.join(sorted(found))}")
    a, b = found["A"], found["B"]
    rank = a.shape[0]
    if b.shape[1] != rank or any(side != 1 for side in b.shape[2:]):
        raise InputError(f"{path}: expected (r, in) and (out, r) for {name}, got lora_A {a.shape} and lora_B {b.shape}")
    alpha = _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", rank))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    transposed = "embedding" in a.key or (config.get("fan_in_fan_out") is True and len(a.shape) == 2)
    shape = (b.shape[0], *a.shape[1:])
    magnitude = found.get("magnitude")
    return Delta(
        read_a=a.read,
        read_b=b.read,
        read_magnitude=None if magnitude is None else magnitude.read,
        scaling=scaling,
        transposed=transposed,
        shape=shape[::-1] if transposed else shape,
        dtype=a.dtype,
        note=f"LoRA of rank {rank}, scaled by {scaling:g}",
    )


def _by_pattern(patterns: object, name: str, default: object) -> float:
    """Return the setting of a module: that of the first pattern that ends its name, as in ``peft.utils.get_pattern_key``."""
    value = default
    for pattern, special in patterns.items() if isinstance(patterns, Mapping) else ():
        try:
            found = re.fullmatch(rf"(.*\.)?{pattern}", name)
        except re.error as err:
            raise InputError(f"expected regular expressions in alpha_pattern, got {pattern!r}: {err}") from err
        if found:
            value = special
            break
    if not isinstance(value, int | float):
        raise InputError(f"expected a number for lora_alpha of {name}, got {value!r}")
    return float(value)


@dataclass(frozen=True)
class _Merged:
    """Reads the weight of the base plus its change, in the type of the base, as ``merge_and_unload`` leaves it."""

    read: ReadRows = field(repr=False)
    delta: Delta

    def __call__(self, rows: slice | None) -> torch.Tensor:
        weight = self.read(None)
        merged = weight.to(torch.float64) + self.delta(None)
        if self.delta.read_magnitude is not None:  # DoRA, equation 5, sets the norm of each row
            magnitude = self.delta.read_magnitude(None).to(torch.float64).reshape(-1)
            dim = 0 if self.delta.transposed else 1
            scale = magnitude / torch.linalg.vector_norm(merged, dim=dim)
            merged = merged * (scale if self.delta.transposed else scale[:, None])
        merged = merged.to(weight.dtype)
        return merged if rows is None else merged[rows]


def _merged(path: Path, base: Listing, deltas: Mapping[str, Delta], others: list[StoredTensor]) -> list[StoredTensor]:
    """List the tensors of the base with adapted and saved ones replaced, then the tensors that only the adapter has."""
    by_key = {stored.key: stored for stored in base.tensors}
    changed = {stored.key: stored for stored in others if stored.key in by_key}
    for name, delta in deltas.items():
        stored = by_key.get(f"{name}.weight") or _by_ending(f"{name}.weight", by_key)
        if stored is None:
            raise InputError(
                f"{path}: the base {base.source} has no weight {name}.weight: expected the model that the adapter was trained on"
            )
        if stored.shape != delta.shape:
            raise InputError(
                f"{path}: {name} changes a weight of shape {stored.shape} by {delta.shape}: expected the same shape"
            )
        if delta.read_magnitude is not None and len(delta.shape) != 2:
            merged = replace(stored, reason="not merged, since it is a convolution with DoRA")
        else:
            merged = replace(stored, read=_Merged(stored.read, delta), identity=None, note=f"merged with {delta.note}")
        changed[stored.key] = merged
    return [changed.get(stored.key, stored) for stored in base.tensors] + [s for s in others if s.key not in by_key]


def _by_ending(key: str, by_key: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """Return the only weight whose name ends with ``key`` or that ends ``key``: models are saved with or without their prefix."""
    found = [stored for name, stored in by_key.items() if name.endswith(f".{key}") or key.endswith(f".{name}")]
    return found[0] if len(found) == 1 else None
