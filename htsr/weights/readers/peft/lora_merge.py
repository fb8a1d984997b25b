"""Merge the changes of a LoRA adapter into the weights of its base, as ``merge_and_unload`` of peft 0.21 does."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.readers.peft.lora_change import Change, Merged
from htsr.weights.readers.peft.lora_factors import WeightChange
from htsr.weights.readers.peft.lora_settings import changed_start, merge_refusal


def merge(
    path: Path, base: Listing, changes: Sequence[WeightChange], config: Mapping[str, object]
) -> tuple[list[StoredTensor], list[StoredTensor]]:
    """Return the tensors of the base with the adapted ones merged, and the changes as they act on this base."""
    by_key = {stored.key: stored for stored in base.tensors}
    pairs = [(change, _target(change.stored.key, by_key)) for change in changes]
    misfits = [_misfit(change, target, base.source) for change, target in pairs if change.delta and not change.no_merge]
    if misfits and None not in misfits:
        raise InputError(f"{path}: {misfits[0]}")
    meeting = Counter(_memory(target) for _, target in pairs if target is not None)
    agreed = {kind: _agreed([pair for pair in pairs if pair[0].kind == kind], config) for kind in ("matrix", "experts")}
    refused = merge_refusal(config)
    merged_of: dict[str, StoredTensor] = {}
    deltas = []
    for change, target in pairs:
        delta, merged = change.stored, target
        transposed = None if target is None else _transposed(change, target)
        transposed = agreed.get(change.kind) if transposed is None else transposed
        reason = change.stored.reason or refused or change.no_merge or _misfit(change, target, base.source)
        if reason is None and target is not None and meeting[_memory(target)] > 1:
            reason = "several changes of the adapter meet in this weight"
        if reason is None and transposed is None:
            reason = "the weight is square and nothing says whether it is stored (in, out) or (out, in)"
        if reason is None and target is not None:
            delta, merged = _merged(change, target, transposed is True, changed_start(config))
        elif target is not None and target.reason is None:
            merged = replace(target, reason=f"not merged: {reason}")
        if reason is not None and delta.reason is None:
            delta = _alone(delta, change, reason, changed_start(config))
        deltas.append(delta)
        if target is not None and merged is not None:
            merged_of[target.key] = merged
    twins = {_memory(by_key[key]): merged for key, merged in merged_of.items()}
    return [_with_twin(stored, merged_of, twins) for stored in base.tensors], deltas


def _alone(delta: StoredTensor, change: WeightChange, reason: str, start: str | None) -> StoredTensor:
    """Return the change of a weight that is not merged; without its base it is unknown if peft would change the base."""
    if start is not None and change.kind != "embedding":
        return replace(delta, reason=f"not merged: {reason}")
    return replace(delta, note=f"{delta.note}; not merged: {reason}")


def _memory(stored: StoredTensor) -> object:
    """Return what is equal for tensors that share memory."""
    return stored.key if stored.identity is None else ("memory", stored.identity)


def _with_twin(
    stored: StoredTensor, merged_of: Mapping[str, StoredTensor], twins: Mapping[object, StoredTensor]
) -> StoredTensor:
    """Return a tensor of the base as merging leaves it: one that shares its memory with a merged one changes with it."""
    if stored.key in merged_of:
        return merged_of[stored.key]
    twin = twins.get(_memory(stored))
    if twin is None:
        return stored
    if twin.shape != stored.shape:
        return replace(stored, reason="it shares its memory with a merged weight of another shape")
    return replace(twin, key=stored.key, longkey=stored.longkey, role=stored.role)


def _target(key: str, by_key: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """Return the weight of this name, or the only one whose name differs by a prefix, which a model may be saved without."""
    if key in by_key:
        return by_key[key]
    found = [stored for name, stored in by_key.items() if name.endswith(f".{key}") or key.endswith(f".{name}")]
    return found[0] if len(found) == 1 else None


def _misfit(change: WeightChange, target: StoredTensor | None, source: str) -> str | None:
    """Return why a change does not fit the base; None if it does."""
    key = change.stored.key
    if target is None:
        return f"the base {source:.200} has no weight {key}: expected the model that the adapter was trained on"
    if target.reason is not None:
        return target.reason
    shape = change.stored.shape
    if target.shape != shape and not (
        change.kind in ("matrix", "experts") and target.shape == (*shape[:-2], shape[-1], shape[-2])
    ):
        return f"{key} has the shape {target.shape} and its change {shape}: expected the same shape"
    if not target.quantised and not target.dtype.startswith(("float", "bfloat")):
        return f"{key} is stored as {target.dtype}: merge the adapter with peft and pass the model"
    return None


def _transposed(change: WeightChange, target: StoredTensor) -> bool | None:
    """Return whether the base stores a weight as ``(in, out)``; None if it is square, so that nobody can tell."""
    if change.delta is None or change.kind in ("kernel", "embedding"):
        return change.kind == "embedding"
    *_, rows, columns = change.stored.shape
    if target.role is not None and change.kind == "matrix":
        return target.role.axes == (1, 0)
    if rows == columns:
        return None
    return change.delta.transposed == (target.shape == change.stored.shape)


def _agreed(pairs: Sequence[tuple[WeightChange, StoredTensor | None]], config: Mapping[str, object]) -> bool | None:
    """Return how square weights are stored if all other adapted ones are stored in one way; None if that is unclear."""
    # peft stores fan_in_fan_out of the last layer that it adapted, which is not enough if a model mixes Linear and Conv1D.
    found = {_transposed(change, target) for change, target in pairs if target is not None and change.delta} - {None}
    if pairs and pairs[0][0].kind == "matrix":
        found.add(config.get("fan_in_fan_out") is True)
    return found.pop() if len(found) == 1 else None


def _merged(
    change: WeightChange, target: StoredTensor, transposed: bool, start: str | None
) -> tuple[StoredTensor, StoredTensor]:
    """Return the change in the layout of the base, and the merged weight."""
    assert change.delta is not None
    read_magnitude = None if change.magnitude is None else change.magnitude.read
    start = None if change.kind == "embedding" else start
    delta = replace(change.delta, shape=target.shape, transposed=transposed)
    merged = Merged(target.read, delta, change.rank, start, read_magnitude)
    note = change.stored.note
    if start is not None:
        note += f"; the change includes what peft takes from the base when it loads an adapter started as {start}"
    if (start == "pissa" and delta.factor <= 0) or (start is not None and change.kind != "matrix"):
        reason = f"peft cannot load an adapter that was started as {start} here"
        return replace(change.stored, reason=reason), replace(target, reason=f"not merged: {reason}")
    read = delta if start is None else Change(replace(merged, read_magnitude=None))
    identity = None if target.identity is None else ("merged", target.identity)
    return (
        replace(change.stored, shape=target.shape, read=read, note=note),
        replace(target, read=merged, identity=identity, note=f"merged with {change.stored.note}"),
    )
