"""List the weights of a PEFT directory: the change that a LoRA adapter makes to each matrix, and the merged matrices.

A change of rank r has at most r eigenvalues above zero, so its alpha rests on few values.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.parametrisations import effective_weights
from htsr.weights.readers.directories import ADAPTER_CONFIG, with_other_files
from htsr.weights.readers.formats import SAFETENSORS, TORCH
from htsr.weights.readers.json_files import read_json
from htsr.weights.readers.peft.lora_factors import WRAPPED, weight_changes
from htsr.weights.readers.peft.lora_merge import merge
from htsr.weights.readers.peft.lora_settings import CONVERT, changed_start
from htsr.weights.readers.peft.lora_tokens import with_new_rows
from htsr.weights.readers.quantised import multiply_scales

ADAPTER_FILES = {"adapter_model.safetensors": SAFETENSORS, "adapter_model.bin": TORCH}
# Names of the factors of LoRA in peft and in the trainers of diffusion models, of LoHa and of LoKr.
PART = re.compile(r"(^|[._])(lora_([AB]|down|up)|hada_[wt]\d(_[ab])?|lokr_[wt]\d(_[ab])?)([._]|$)")
PREFIX = "base_model.model."
FACTOR = re.compile(
    r"(?P<path>.*)\.lora_((embedding_)?(?P<factor>[AB])|magnitude_vector)(\.default)?(\.weight)?", re.DOTALL
)
# What VeRA and RandLoRA multiply by, which is drawn once and stored for all layers.
FROZEN = re.compile(r"(.*\.)?(vera|randlora)_[AB]")
TOKENS = re.compile(r"(?P<path>.*?)(\.token_adapter)?\.trainable_tokens_delta(\.default)?", re.DOTALL)


def read_peft(path: Path, base: Listing | None = None) -> Listing:
    """List the change that an adapter makes to each weight as ``[delta]``, after the merged weights if there is a base."""
    # Adapters other than LoRA are listed by the tensors that they store.
    config = read_json(path / ADAPTER_CONFIG)
    listing = list_adapter(path)
    kind = str(config.get("peft_type") or "LORA").upper()
    if kind != "LORA":
        if base is not None:
            raise InputError(
                f"{path}: expected a LoRA adapter because a base is given, got one of the kind {kind:.30}: merge it "
                "with peft and pass the model"
            )
        note = f"stored by a {kind:.30} adapter: a factor of the change that it makes, not the change itself"
        tensors = [
            replace(stored, reason="a random projection, which the adapter does not train")
            if FROZEN.fullmatch(stored.key)
            else replace(stored, note=note)
            for stored in listing.tensors
        ]
        return replace(listing, tensors=tensors)
    factors: dict[str, dict[str, StoredTensor]] = {}
    others: list[StoredTensor] = []
    rows: dict[str, StoredTensor] = {}  # by the embedding that they change
    for stored in listing.tensors:
        key = stored.key.removeprefix(PREFIX)
        found = FACTOR.fullmatch(key)
        if found is None:
            others.append(_other(stored, key))
            if tokens := TOKENS.fullmatch(key):
                rows[f"{tokens['path']}.weight"] = replace(stored, key=key)
        else:
            factors.setdefault(found["path"], {})[found["factor"] or "magnitude"] = stored
    if base is None:
        changes = [change.stored for change in weight_changes(path, factors, config, {})]
        return Listing(str(path), [*others, *_without_base(changes, config)], listing.config, metadata=listing.metadata)
    base = effective_weights(multiply_scales(base))
    base = replace(base, tensors=_with_saved(base.tensors, others, rows, config))
    changed = weight_changes(path, factors, config, {stored.key: stored.shape for stored in base.tensors})
    tensors, deltas = merge(path, base, changed, config)
    return Listing(f"{path} on {base.source}", [*tensors, *deltas], base.config, metadata=listing.metadata)


def adapter_folder(path: str | os.PathLike[str]) -> Path | None:
    """Return the folder of the adapter that a path leads to: the folder, or the file of its weights; None if it is none."""
    folder = Path(path).parent if Path(path).name in ADAPTER_FILES else Path(path)
    return folder if (folder / ADAPTER_CONFIG).is_file() else None


def with_factors_noted(listing: Listing) -> Listing:
    """Return a listing of a file without the settings of an adapter, with a note at every tensor that is a part of one."""
    note = "a factor of the change that an adapter makes, not the change itself: pass its directory with adapter_config.json"
    tensors = [replace(stored, note=note) if PART.search(stored.key) else stored for stored in listing.tensors]
    return replace(listing, tensors=tensors)


def list_adapter(path: Path) -> Listing:
    """List the tensors that an adapter's directory stores, from the file that peft would read if it is there."""
    for name, format_ in ADAPTER_FILES.items():
        if (path / name).is_file():
            return with_other_files(format_.list_tensors(path / name), path, {name})
    return (SAFETENSORS if list(path.glob("*.safetensors")) else TORCH).list_tensors(path)


def _other(stored: StoredTensor, key: str) -> StoredTensor:
    """Return a tensor that is no factor under the name that it has in the base, with a reason if it is no whole weight."""
    if TOKENS.fullmatch(key):
        return replace(stored, key=key, reason="rows that replace some rows of an embedding, not a matrix of their own")
    key = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", key).replace(WRAPPED, "")
    if ".lora_" in key and not key.endswith(".bias"):
        return replace(stored, key=key, reason="belongs to a variant of LoRA that htsr does not know")
    return replace(stored, key=key)


def _without_base(changes: Sequence[StoredTensor], config: Mapping[str, object]) -> list[StoredTensor]:
    """Return the changes with a reason if they depend on the base, since peft changes it when it loads the adapter."""
    start = changed_start(config)
    if start is None:
        return list(changes)
    reason = f"peft also changes the base of an adapter that was started as {start}: give the base, or {CONVERT}"
    return [
        stored if stored.role is not None and stored.role.layer_type == "embedding" else replace(stored, reason=reason)
        for stored in changes
    ]


def _with_saved(
    tensors: Sequence[StoredTensor],
    others: Sequence[StoredTensor],
    rows: Mapping[str, StoredTensor],
    config: Mapping[str, object],
) -> list[StoredTensor]:
    """Return the tensors of a base with those that the adapter stores whole in their place, or at the end if they are new."""
    saved = {stored.key: stored for stored in others}
    keys = {stored.key for stored in tensors}
    renewed = {stored.key: with_new_rows(stored, rows[stored.key], config) for stored in tensors if stored.key in rows}
    # a weight that shares its memory with such an embedding changes with it
    twins = {stored.identity: renewed[stored.key] for stored in tensors if stored.key in renewed and stored.identity}
    placed = []
    for stored in tensors:
        twin = renewed.get(stored.key) or twins.get(stored.identity)
        if twin is not None and twin.shape == stored.shape:
            placed.append(replace(twin, key=stored.key, longkey=stored.longkey, role=stored.role))
        elif stored.key in saved:
            placed.append(replace(saved[stored.key], role=stored.role))
        else:
            placed.append(stored)
    return placed + [stored for stored in others if stored.key not in keys]
