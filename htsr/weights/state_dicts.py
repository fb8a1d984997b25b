"""Weights of a state dict, or of any mapping from names to tensors or arrays."""

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.names import without_common_prefix

# Where trainers keep the model in a dictionary of everything: Lightning and most scripts; torchvision; nanoGPT; DeepSpeed.
MODEL_KEYS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "weights", "params")
MAX_DEPTH = 3


def read_state_dict(tensors: Mapping[str, object], source: str = "state dict") -> Listing:
    """List the tensors of a mapping from names to torch tensors or numpy arrays.

    Args:
        tensors: ``model.state_dict()``, ``{name: array}``, or a checkpoint that holds one of these under a name such as
            ``model`` or ``state_dict``.
        source: What to call it.

    Returns:
        The tensors in the order of the mapping; entries that are none have a reason.

    Raises:
        InputError: If a name is not a string.
    """
    tensors, beside = extract_state_dict(tensors)
    names = without_common_prefix([key for key in tensors if not _is_counter(key)], "module.")
    names |= {key: key for key in tensors if key not in names}
    if "pytorch-lightning_version" in beside:
        names = _without_attribute(names)
    listed = [_stored(names[key], key, value) for key, value in tensors.items()]
    listed += [_no_tensor(key, value, "beside the model, not read") for key, value in beside.items()]
    return Listing(source, listed)


def extract_state_dict(checkpoint: Mapping[str, object]) -> tuple[Mapping[str, object], dict[str, object]]:
    """The state dict inside a checkpoint, and what stands beside it.

    Args:
        checkpoint: A state dict, or a dictionary that holds one.

    Returns:
        The state dict, the checkpoint itself if it holds tensors; and the other entries on the way to it.

    Raises:
        InputError: If a name is not a string.
    """
    beside: dict[str, object] = {}
    for _ in range(MAX_DEPTH):
        for key in checkpoint:
            if not isinstance(key, str):
                raise InputError(
                    f"expected a mapping from names to tensors, got the key {key!r:.50} ({type(key).__name__})"
                )
        inner = {key: value for key, value in checkpoint.items() if isinstance(value, Mapping) and _tensors(value)}
        chosen = next((key for key in MODEL_KEYS if key in inner), next(iter(inner), None) if len(inner) == 1 else None)
        if chosen is None or any(
            isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 1 for value in checkpoint.values()
        ):
            break
        beside |= {key: value for key, value in checkpoint.items() if key != chosen}
        checkpoint = inner[chosen]
    return checkpoint, beside


def _tensors(mapping: Mapping[Any, object]) -> bool:
    """Whether a mapping holds tensors, or a mapping that does."""
    todo, seen = [mapping], {id(mapping)}
    while todo:
        for value in todo.pop().values():
            if isinstance(value, torch.Tensor | np.ndarray):
                return True
            if isinstance(value, Mapping) and id(value) not in seen:  # a pickle may hold itself
                seen.add(id(value))
                todo.append(value)
    return False


def _is_counter(key: str) -> bool:
    return key == "n_averaged"  # torch.optim.swa_utils.AveragedModel counts beside its ``module.``


def _without_attribute(names: Mapping[str, str]) -> dict[str, str]:
    """Drop the attribute under which a LightningModule keeps its only network."""
    first = {name.split(".")[0] for name in names.values()}
    if len(first) == 1 and all(name.count(".") > 1 for name in names.values()):
        return {key: name.split(".", 1)[1] for key, name in names.items()}
    return dict(names)


def _stored(name: str, key: str, value: object) -> StoredTensor:
    if not isinstance(value, torch.Tensor | np.ndarray):
        return _no_tensor(key, value, "not a tensor or array")
    dtype = dtype_name(value)
    reason = why_not_dense(value)
    shape = () if reason and "nested" in reason else tuple(value.shape)
    quantised = isinstance(value, torch.Tensor) and value.is_quantized
    return StoredTensor(
        key=name,
        shape=shape,
        dtype=dtype,
        read=partial(_read, value),
        longkey=key,
        identity=None if reason else storage_identity(value),
        quantised=quantised,
        reason=reason,
        note=f"dequantised from {dtype}" if quantised else "",
    )


def _no_tensor(key: str, value: object, why: str) -> StoredTensor:
    hint = f": pass source[{key!r}] for what is in it" if isinstance(value, Mapping) and _tensors(value) else ""
    return StoredTensor(key, (), type(value).__name__, _nothing, reason=f"a {type(value).__name__}, {why}{hint}")


def _nothing(rows: slice | None) -> torch.Tensor:
    raise AssertionError("what has a reason is not read")


def _read(value: torch.Tensor | np.ndarray, rows: slice | None) -> torch.Tensor:
    return as_tensor(value if rows is None else value[rows])


def why_not_dense(value: torch.Tensor | np.ndarray) -> str | None:
    """Why a tensor holds no plain values; None if it does."""
    if not isinstance(value, torch.Tensor):
        return None
    if value.is_nested:
        return "nested tensor: not a matrix"
    if value.is_meta:
        return "on the meta device: holds no values"
    if value.layout != torch.strided:
        return f"layout {value.layout}: not a dense tensor".replace("torch.", "")
    if type(value) in (torch.Tensor, torch.nn.Parameter) and value.nbytes > value.untyped_storage().nbytes():
        return "an expanded view: it repeats the values that it stores"
    return None


def dtype_name(value: torch.Tensor | np.ndarray) -> str:
    """The type of a tensor or array in words: ``float32``, ``bfloat16``."""
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else value.dtype.name


def storage_identity(value: torch.Tensor | np.ndarray) -> Hashable:
    """What two tied tensors have in common: the same memory read in the same way."""
    if isinstance(value, np.ndarray):
        return ("numpy", value.__array_interface__["data"][0], value.shape, value.strides)
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or not value.numel():  # a wrapper such as DTensor
        return id(value)
    return (str(value.device), value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
