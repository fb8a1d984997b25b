"""Weights of a live ``torch.nn.Module``."""

from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrize

from htsr.weights.inventory import Inventory, Layer, Skipped

LAYER_TYPES: dict[type[nn.Module], str] = {
    nn.Linear: "dense",
    nn.Embedding: "embedding",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
}

# Components that torch.compile, activation checkpointing and FSDP insert into module paths.
WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}


def read_module(model: nn.Module) -> Inventory:
    """List the weights of a module, in the order in which its layers were defined.

    Parametrized layers (weight_norm, spectral_norm) are listed by the weight they compute; a weight that several
    layers share is listed once and then as tied to the first.

    Args:
        model: Any module. It is not changed.

    Returns:
        The layers, and every other parameter with the reason why it is not one.
    """
    layers: list[Layer] = []
    skipped: list[Skipped] = []
    owner_of: dict[int, str] = {}  # id of a weight -> name of the first layer that has it
    for path, module in model.named_modules(remove_duplicate=False):
        layer_type = next((name for cls, name in LAYER_TYPES.items() if isinstance(module, cls)), None)
        own: dict[str, torch.Tensor] = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        computed = layer_type is not None and "weight" not in own
        if computed:
            own["weight"] = _weight(module)
        for key, tensor in own.items():
            reason = _not_analysed(module, path, key, tensor, layer_type)
            if reason is not None:
                shape = () if nn.parameter.is_lazy(tensor) else tuple(tensor.shape)
                skipped.append(Skipped(_clean(f"{path}.{key}"), shape, reason))
                continue
            assert layer_type is not None
            name = _clean(path) or key
            first = owner_of.setdefault(id(module if computed else tensor), name)
            load = partial(_weight, module)
            tied_to = None if first == name else first
            layers.append(Layer(name, path or name, layer_type, tuple(tensor.shape), load, tied_to))
    return Inventory(f"module {type(model).__name__}", layers, skipped)


def _not_analysed(module: nn.Module, path: str, key: str, tensor: torch.Tensor, layer_type: str | None) -> str | None:
    """Why a tensor is not analysed; None when it is."""
    if nn.parameter.is_lazy(tensor):
        return "lazily initialised: run one batch through the model first"
    if "parametrizations" in path.split("."):
        return f"part of a weight that {_clean(path.split('.parametrizations')[0])} computes"
    if tensor.ndim < 2:
        return f"{tensor.ndim}-D: not a matrix"
    if layer_type is None:
        return f"layer type {type(module).__name__}: not analysed in this version"
    if key != "weight":
        return f"{type(module).__name__}.{key}: only the weight is analysed"
    if tensor.is_meta:
        return "on the meta device: holds no values"
    if not tensor.is_floating_point():
        return f"dtype {tensor.dtype}: not a floating-point weight"
    if tensor.numel() == 0:
        return "empty"
    if getattr(module, "groups", 1) != 1:
        return f"grouped convolution (groups={module.groups}): not analysed in this version"
    return None


def _weight(module: nn.Module) -> torch.Tensor:
    """The weight that a layer computes with: its parameter, or what its parametrization makes of one.

    A parametrization in training mode may update its buffers when read (spectral_norm runs a power iteration), so
    parametrizations are read in evaluation mode.

    Args:
        module: A layer.

    Returns:
        Its weight, detached.
    """
    parts = list(module.parametrizations.modules()) if parametrize.is_parametrized(module) else []  # type: ignore[union-attr]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        with torch.no_grad():
            return module.weight.detach()  # type: ignore[operator]
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _clean(path: str) -> str:
    return ".".join(part for part in path.split(".") if part and part not in WRAPPERS)
