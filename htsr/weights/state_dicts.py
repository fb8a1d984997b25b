"""List the weights of a state dict, or of any mapping from names to tensors or arrays."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from htsr.errors import InputError
from htsr.weights.arrays import quantised_class, some_rows
from htsr.weights.inventory import Listing, OptimizerParameter, StoredTensor, never_read
from htsr.weights.names import clean_names, without_only_parent
from htsr.weights.networks import EMA_NOTE, averaged, several_networks, side_by_side
from htsr.weights.optimizer_state import OPTIMIZER_STATE

# Names under which trainers keep the model in a checkpoint: Lightning and most scripts, torchvision, nanoGPT, DeepSpeed.
MODEL_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "weights", "params")
MAX_DEPTH = 3
NO_TENSOR = "not a tensor or array"
BESIDE_MODEL = "not read, since it is stored beside the model"


def read_state_dict(tensors: Mapping[str, object], source: str = "state dict") -> Listing:
    """List every entry of a state dict, or of a checkpoint that holds one, in order; skip those that are not tensors."""
    optimizers = dict(_optimizers(tensors))
    optimized = list(_optimized(optimizers))
    if () in optimizers:
        return Listing(source, [], optimized=optimized)
    tensors, beside = extract_state_dict(tensors)
    names = clean_names(list(tensors))
    if "pytorch-lightning_version" in beside:
        names = without_only_parent(names)  # the attribute under which a LightningModule keeps its only network
    listed = [_stored(names[key], key, value) for key, value in tensors.items()]
    average = averaged(names)
    listed = [replace(stored, note=EMA_NOTE) if stored.longkey in average else stored for stored in listed]
    listed += [_no_tensor(key, value, BESIDE_MODEL) for key, value in beside.items()]
    held = {path[0] for path in optimizers}
    listed = [
        replace(stored, reason=OPTIMIZER_STATE) if stored.reason and stored.key in held else stored for stored in listed
    ]
    return Listing(source, listed, optimized=optimized, in_order=True)


def extract_state_dict(
    checkpoint: Mapping[str, object], depth: int = 0
) -> tuple[Mapping[str, object], dict[str, object]]:
    """Return the state dict inside a checkpoint, and the entries beside it."""
    beside: dict[str, object] = {}
    for _ in range(MAX_DEPTH):
        for key in checkpoint:
            if not isinstance(key, str):
                raise InputError(
                    f"expected a mapping from names to tensors, got the key {key!r:.50} ({type(key).__name__})"
                )
        inner = {
            key: value for key, value in checkpoint.items() if isinstance(value, Mapping) and _holds_tensors(value)
        }
        inside = partial(extract_state_dict, depth=depth + 1)
        networks = several_networks(inner, inside) if depth < MAX_DEPTH else {}  # a pickle may contain itself
        if networks:
            beside |= {key: value for key, value in checkpoint.items() if key not in networks}
            return side_by_side(networks), beside
        chosen = next((key for key in MODEL_KEYS if key in inner), None)
        if chosen is None:
            others = [key for key, value in inner.items() if next(_optimizers(value), None) is None]
            chosen = others[0] if len(others) == 1 else None
        own = _matrices(checkpoint.values())
        if chosen is None or (own and own >= _matrices(_values(inner[chosen]))):
            break
        beside |= {key: value for key, value in checkpoint.items() if key != chosen}
        checkpoint = inner[chosen]
    return checkpoint, beside


def _optimizers(checkpoint: object) -> Iterator[tuple[tuple[Hashable, ...], Mapping[str, Any]]]:
    """Yield the state dict of each optimizer in a checkpoint, with the keys that lead to it."""
    todo: list[tuple[tuple[Hashable, ...], object]] = [((), checkpoint)]
    seen: set[int] = set()  # a pickle may contain itself
    for path, value in todo:
        if len(path) > MAX_DEPTH or id(value) in seen:
            continue
        if isinstance(value, Mapping):
            if isinstance(value.get("state"), Mapping) and isinstance(value.get("param_groups"), list | tuple):
                yield path, value
                continue
            todo += [((*path, key), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            todo += [((*path, place), inner) for place, inner in enumerate(value)]
        else:
            continue
        seen.add(id(value))


def _optimized(
    optimizers: Mapping[tuple[Hashable, ...], Mapping[str, Any]],
) -> Iterator[OptimizerParameter]:
    """Yield every parameter of the state dicts of optimizers, in the order of their groups."""
    for path, optimizer in optimizers.items():
        prefix = ".".join(map(str, path)) + "." if len(optimizers) > 1 else ""
        for number, group in enumerate(optimizer["param_groups"]):
            params = group.get("params") if isinstance(group, Mapping) else None
            if not isinstance(params, list | tuple):
                continue
            names = group.get("param_names")
            named = isinstance(names, list | tuple) and len(names) == len(params)
            for position, key in enumerate(params):
                if not isinstance(key, int | str):
                    continue
                name = names[position] if named else key
                place = f"param_groups.{number}.params.{position}"
                state = optimizer["state"].get(key)
                states = {
                    kind: _stored(kind, kind, value)
                    for kind, value in (state.items() if isinstance(state, Mapping) else ())
                    if isinstance(kind, str) and isinstance(value, torch.Tensor | np.ndarray) and value.ndim
                }
                yield OptimizerParameter(
                    place=f"{prefix}{place}",
                    group=(path, number),
                    states=states,
                    name=name if isinstance(name, str) else "",
                    path=(*path, "state", key),
                )


def _holds_tensors(mapping: Mapping[Any, object]) -> bool:
    """Return whether a mapping holds tensors, or a mapping that does."""
    return any(isinstance(value, torch.Tensor | np.ndarray) for value in _values(mapping))


def _matrices(values: Iterable[object]) -> int:
    """Return how many of the values are tensors of two dimensions or more."""
    return sum(isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 1 for value in values)


def _values(mapping: Mapping[Any, object]) -> Iterator[object]:
    """Yield the values of a mapping and of the mappings in it."""
    todo, seen = [mapping], {id(mapping)}
    while todo:
        for value in todo.pop().values():
            yield value
            if isinstance(value, Mapping) and id(value) not in seen:  # a pickle may contain itself
                seen.add(id(value))
                todo.append(value)


def _stored(name: str, key: str, value: object) -> StoredTensor:
    """List one entry of a state dict, with a reason if it cannot be analysed."""
    if not isinstance(value, torch.Tensor | np.ndarray):
        return _no_tensor(key, value, NO_TENSOR)
    dtype = dtype_name(value)
    reason = why_not_dense(value)
    shape = () if reason and "nested" in reason else tuple(value.shape)
    quantised = isinstance(value, torch.Tensor) and (value.is_quantized or bool(quantised_class(value)))
    return StoredTensor(
        key=name,
        shape=shape,
        dtype=dtype,
        read=partial(some_rows, value),
        longkey=key,
        identity=None if reason else storage_identity(value),
        quantised=quantised,
        reason=reason,
        note=f"dequantised from {dtype}" if quantised else "",
        num_params=0 if reason and "nested" in reason else None,
    )


def _no_tensor(key: str, value: object, why: str) -> StoredTensor:
    """List an entry that is not a tensor, with the reason and a hint if it holds tensors."""
    hint = f"; to analyse it, pass source[{key!r}]" if isinstance(value, Mapping) and _holds_tensors(value) else ""
    kind = type(value).__name__
    return StoredTensor(key, (), kind, never_read, reason=f"type {kind}: {why}{hint}", num_params=0)


def why_not_dense(value: torch.Tensor | np.ndarray) -> str | None:
    """Return why a tensor does not hold plain values; None if it does."""
    if not isinstance(value, torch.Tensor):
        return None
    if value.is_nested:
        return "nested tensor: not a matrix"
    if value.is_meta:
        return "on the meta device: it has no values"
    if value.layout != torch.strided:
        return f"layout {value.layout}: not a dense tensor".replace("torch.", "")
    if type(value) in (torch.Tensor, torch.nn.Parameter) and value.nbytes > value.untyped_storage().nbytes():
        return "an expanded view: it repeats the values that it stores"
    return None


def dtype_name(value: torch.Tensor | np.ndarray) -> str:
    """Return the type of a tensor or array as text: ``float32``, ``bfloat16``, or the class of one that is quantised."""
    if kind := quantised_class(value):
        return kind
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else value.dtype.name


def storage_identity(value: torch.Tensor | np.ndarray) -> Hashable:
    """Return a value that is equal for tied tensors: those that read the same memory in the same way."""
    if isinstance(value, np.ndarray):
        return ("numpy", value.__array_interface__["data"][0], value.shape, value.strides)
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or not value.numel():  # a wrapper such as DTensor
        return id(value)
    return (str(value.device), value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
