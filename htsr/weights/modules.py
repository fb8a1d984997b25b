"""Weights of a live ``torch.nn.Module``."""

from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from htsr.weights.inventory import Inventory, Layer, Skipped
from htsr.weights.state_dicts import VECTOR_SLICES

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
        The layers, and every other parameter and buffer with the reason why it is not one.
    """
    layers: list[Layer] = []
    skipped: list[Skipped] = []
    names: set[str] = set()
    owner_of: dict[int, str] = {}  # id of a weight -> name of the first layer that has it
    for path, module in model.named_modules(remove_duplicate=False):
        layer_type = next((name for cls, name in LAYER_TYPES.items() if isinstance(module, cls)), None)
        own: dict[str, torch.Tensor] = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        parametrized = parametrize.is_parametrized(module, "weight")
        computed = layer_type is not None and "weight" not in own and (parametrized or module.weight is not None)
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
            if name in names:  # told apart by the wrapper alone
                name = path
            names.add(name)
            first = owner_of.setdefault(id(module if computed else tensor), name)
            load = partial(_weight, module)
            tied_to = None if first == name else first
            layers.append(Layer(name, path or name, layer_type, tuple(tensor.shape), load, tied_to))
        skipped += [
            Skipped(_clean(f"{path}.{key}"), tuple(buffer.shape), "a buffer, not a parameter")
            for key, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
        ]
        if (
            not own and not parametrized and callable(getattr(module, "weight", None))
        ):  # torch's quantized layers unpack their weight on request
            skipped.append(Skipped(_clean(path), (), f"layer type {type(module).__name__}: quantized, not analysed"))
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
    if tensor.ndim > 2 and min(tensor.shape[:2]) == 1:
        return VECTOR_SLICES
    return None


def _weight(module: nn.Module) -> torch.Tensor:
    """The weight that a layer computes with: its parameter, or what a parametrization or a hook makes of its parameters.

    A parametrization in training mode may update its buffers when read (spectral_norm runs a power iteration), so
    parametrizations are read in evaluation mode. The hooks of the older weight_norm, spectral_norm and of pruning set the
    attribute ``weight`` in the forward pass only, so it may be stale; they are asked to compute it.

    Args:
        module: A layer.

    Returns:
        Its weight, detached.
    """
    if not parametrize.is_parametrized(module, "weight"):
        with torch.no_grad():
            return _hooked_weight(module).detach()
    parts = list(module.parametrizations.modules())  # type: ignore[union-attr]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        with torch.no_grad():
            return module.weight.detach()  # type: ignore[operator]
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _hooked_weight(module: nn.Module) -> torch.Tensor:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            return hook.compute_weight(module)
        if isinstance(hook, SpectralNorm) and hook.name == "weight":
            return hook.compute_weight(module, do_power_iteration=False)
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == "weight":
            return hook.apply_mask(module)
    return module.weight  # type: ignore[return-value]


def _clean(path: str) -> str:
    return ".".join(part for part in path.split(".") if part and part not in WRAPPERS)
