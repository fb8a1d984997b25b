"""Weights of a state dict, or of any mapping from names to tensors or arrays."""

import re
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Inventory, Layer, Skipped

# A bare tensor does not say which layer it came from: 2-D tensors are embeddings by these words, else dense.
EMBEDDING = re.compile(r"(^|[._])(\w*embed(ding)?s?\w*|wte|wpe)([._]|$)", re.IGNORECASE)
# A kernel longer than this is no kernel: 3-D and 4-D tensors without a layer are as often stacked experts or tokens.
MAX_KERNEL = 31
# Parts of weights that weight_norm, spectral_norm and pruning compute in the module.
PARTS = re.compile(r"(^|\.)(parametrizations\..*|weight_(g|v|u|orig)|\w*mask)$")
# torch's names for attention and recurrent weights that stack several matrices in one tensor.
STACKED = re.compile(r"(^|\.)(in_proj_weight|weight_(ih|hh|hr)_l\d+(_reverse)?)$")


VECTOR_SLICES = "one input or output channel: each slice of the kernel is a vector"


def read_state_dict(tensors: Mapping[str, object], source: str | None = None) -> Inventory:
    """List the weights of a mapping from names to torch tensors or numpy arrays.

    Args:
        tensors: ``model.state_dict()``, or ``{name: array}``.
        source: What to call it. Defaults to ``state dict``.

    Returns:
        The layers in the order of the mapping, and every other entry with the reason.

    Raises:
        InputError: If a name is not a string.
    """
    layers: list[Layer] = []
    skipped: list[Skipped] = []
    owner_of: dict[tuple[object, ...], str] = {}
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise InputError(f"expected a mapping from names to tensors, got the key {key!r} ({type(key).__name__})")
        if not isinstance(value, torch.Tensor | np.ndarray):
            hint = f": pass source[{key!r}] for what is in it" if isinstance(value, Mapping) else ""
            skipped.append(Skipped(key, (), f"a {type(value).__name__}, not a tensor or array{hint}"))
            continue
        shape = tuple(value.shape)
        reason = _no_dense_values(value) or not_analysed(key, shape, _dtype_name(value))
        if reason is not None:
            skipped.append(Skipped(key, shape, reason))
            continue
        name = layer_name(key, tensors)
        first = owner_of.setdefault(_storage(value), name)
        tied_to = None if first == name else first
        layers.append(Layer(name, name, layer_type(key, shape), shape, partial(as_tensor, value), tied_to))
    return Inventory(source or "state dict", layers, skipped)


def not_analysed(key: str, shape: tuple[int, ...], dtype: str) -> str | None:
    """Why a named tensor is not analysed; None when it is.

    Args:
        key: The tensor's name.
        shape: Its shape.
        dtype: Its type as numpy, torch or safetensors spells it: ``float32``, ``bfloat16``, ``F8_E4M3``.

    Returns:
        The reason, or None.
    """
    if not dtype.lower().startswith(("f", "bf")):
        return f"dtype {dtype}: not a floating-point weight"
    if len(shape) < 2:
        return f"{len(shape)}-D: not a matrix"
    if len(shape) > 4:
        return f"{len(shape)}-D: not analysed in this version"
    if 0 in shape:
        return "empty"
    if key == "bias" or key.endswith(".bias"):
        return "a bias or mask, not a weight"
    if PARTS.search(key):
        return "part of a weight that the module computes: pass the module"
    if len(shape) > 2 and min(shape[:2]) == 1:
        return VECTOR_SLICES
    if len(shape) > 2 and max(shape[2:]) > MAX_KERNEL:
        return f"{len(shape)}-D with a last side above {MAX_KERNEL}: not a convolution, and not split in this version"
    if STACKED.search(key):
        return "stacked attention or recurrent weight: not split in this version"
    return None


def layer_type(key: str, shape: tuple[int, ...]) -> str:
    """``conv1d`` or ``conv2d`` by the number of dimensions; for matrices ``embedding`` or ``dense`` by the name."""
    if len(shape) == 2:
        return "embedding" if EMBEDDING.search(key) else "dense"
    return f"conv{len(shape) - 2}d"


def layer_name(key: str, keys: Mapping[str, object]) -> str:
    """The module path of a tensor: its name without ``.weight``, where that is still unique."""
    stripped = key.removesuffix(".weight")
    return key if stripped in keys else stripped


def _no_dense_values(value: torch.Tensor | np.ndarray) -> str | None:
    if isinstance(value, torch.Tensor) and value.is_meta:
        return "on the meta device: holds no values"
    if isinstance(value, torch.Tensor) and value.layout != torch.strided:
        return f"layout {value.layout}: not a dense tensor".replace("torch.", "")
    return None


def _dtype_name(value: torch.Tensor | np.ndarray) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else value.dtype.name


def _storage(value: torch.Tensor | np.ndarray) -> tuple[object, ...]:
    """What two tied tensors have in common: the same memory read in the same way."""
    if isinstance(value, torch.Tensor):
        return (str(value.device), value.data_ptr(), tuple(value.shape), value.stride())
    return ("numpy", value.__array_interface__["data"][0], value.shape, value.strides)
