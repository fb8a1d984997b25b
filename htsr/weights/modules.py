"""List the weights of a live ``torch.nn.Module``."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim.swa_utils import AveragedModel

from htsr.weights.arrays import as_tensor, quantised_class
from htsr.weights.attention import Heads
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.names import WRAPPERS, without_wrappers
from htsr.weights.recurrent import recurrent_type
from htsr.weights.roles import LayerRole, role_by_name
from htsr.weights.state_dicts import dtype_name, read_state_dict, storage_identity, why_not_dense

# Classes of the parameters of bitsandbytes.
BITSANDBYTES = ("Params4bit", "Int8Params")
# Wrappers that keep the wrapped module in their attribute ``module``.
PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)
CONVOLUTIONS = {
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}
GATES = {
    "RNN_TANH": "", "RNN_RELU": "", "LSTM": "ifgo", "GRU": "rzn",
    "RNNCell": "", "LSTMCell": "ifgo", "GRUCell": "rzn",
}  # fmt: skip


def read_module(model: nn.Module) -> Listing:
    """List every parameter, computed weight and buffer of a module in the order of its layers, without changing it."""
    # FSDP1 flattens parameters and keeps a shard of each, so its whole state dict is gathered. FSDP2 (``fully_shard``) gathers
    # one weight at a time, when it is read.
    if _is_fsdp1(model):
        return _gathered(model)
    # A weight that several layers share is listed for each of them, with the same identity.
    tensors: list[StoredTensor] = []
    shapes = {
        without_wrappers(key): tuple(p.shape) for key, p in model.named_parameters() if not nn.parameter.is_lazy(p)
    }
    clean_paths = {"": ""}
    parents = {"": model}
    known: dict[int, Mapping[str, object]] = {}
    configs = {"": _own_config(model, known)}
    for path, module in model.named_modules(remove_duplicate=False):
        if path:
            above, _, name = path.rpartition(".")
            wrapped = name in WRAPPERS or (name == "module" and isinstance(parents[above], PARALLEL))
            clean_paths[path] = clean_paths[above] if wrapped else f"{clean_paths[above]}.{name}".lstrip(".")
            parents[path] = module
            configs[path] = _own_config(module, known) or configs[above]
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        computed = _computed(module)
        names = list(dict.fromkeys([*computed, *own]))
        for key in names:
            longkey = f"{path}.{key}".lstrip(".")
            name = f"{clean_paths[path]}.{key}".lstrip(".")
            parent = parents[path.rpartition(".")[0]]
            listed = _listed(module, parent, key, own.get(key), key in computed, name, longkey, shapes)
            tensors.append(replace(listed, config=configs[path]))
        tensors += [
            _skipped(
                f"{clean_paths[path]}.{key}".lstrip("."),
                buffer,
                "a buffer, not a parameter: it is not trained",
                num_params=0,
            )
            for key, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
        ]
        if not names and callable(getattr(type(module), "weight", None)):  # a layer of torch.ao.nn.quantized
            tensors.append(_quantised(module, clean_paths[path], path))
        elif not names and callable(
            getattr(type(module), "get_weight", None)
        ):  # a recurrent one, which has several weights
            tensors += _quantised_recurrent(module, clean_paths[path], path)
    return Listing(f"module {type(model).__name__}", tensors, _config(model))


def _is_fsdp1(model: nn.Module) -> bool:
    """Return whether a module contains a ``FullyShardedDataParallel`` (FSDP1)."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules())


def _gathered(model: nn.Module) -> Listing:
    """List the whole state dict of an FSDP1 module, gathered from all ranks; every rank must call this."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    tensors = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    listing = read_state_dict(tensors, f"module {type(model).__name__}")
    return replace(listing, config=_config(model))


def _listed(
    module: nn.Module,
    parent: nn.Module,
    key: str,
    parameter: torch.Tensor | None,
    computed: bool,
    name: str,
    longkey: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> StoredTensor:
    """List one parameter or computed weight of a module, with its role or with the reason why it is skipped."""
    if parameter is not None and nn.parameter.is_lazy(parameter):
        return _skipped(name, None, "lazily initialised: run one batch through the model first")
    if not _lost_its_class(module) and "parametrizations" in longkey.split("."):
        owner = name.split(".parametrizations")[0].removesuffix("parametrizations") or "the model"
        return _skipped(name, parameter, f"part of a weight that {owner} computes", num_params=0)
    hooked = next(
        (hooked for hooked in _computed(module) if key in (f"{hooked}_g", f"{hooked}_v", f"{hooked}_orig")), None
    )
    if hooked is not None and parameter is not None:
        owner = name.rpartition(".")[0] or "the model"
        return _skipped(name, parameter, f"part of the {hooked} that {owner} computes", num_params=0)
    if type(parameter).__name__ in BITSANDBYTES and parameter is not None:
        stored = _of_bitsandbytes(module, key, parameter, name, longkey)
        kind = _role(module, parent, key, name, stored.shape, shapes)
        return replace(stored, role=None if isinstance(kind, str) else kind)
    tensor = _weight(module, key, None) if computed else parameter
    assert tensor is not None
    num_params = _num_params(module, key) if computed else None
    reason = why_not_dense(tensor)
    if reason is not None or tensor.ndim < 2:
        return _skipped(name, tensor, reason or f"{tensor.ndim}-D: not a matrix", num_params)
    shape = tuple(tensor.shape)
    kind = quantised_class(tensor)
    role: LayerRole | str | None = _role(module, parent, key, name, shape, shapes)
    if _lost_its_class(module) and _layer_class(module) in (nn.Module, type(module)):
        role = None  # as in a state dict, its name is all that tells what it is
    if isinstance(role, str):
        return _skipped(name, tensor, role, num_params)
    return StoredTensor(
        key=name,
        shape=shape,
        dtype=dtype_name(tensor),
        read=partial(_weight, module, key),
        longkey=longkey,
        quantised=bool(kind),
        note=f"dequantised from {kind}" if kind else "",
        role=role,
        identity=(id(module), key) if computed else storage_identity(tensor),
        num_params=num_params,
    )


def _lost_its_class(module: nn.Module) -> bool:
    """Return whether a module was traced or exported, so that its class computes nothing any longer."""
    return type(module) is nn.Module or isinstance(module, torch.jit.ScriptModule)


def _num_params(module: nn.Module, key: str) -> int:
    """Return the number of parameters from which a module computes a tensor."""
    if parametrize.is_parametrized(module, key):
        parts: Iterable[torch.Tensor] = module.parametrizations[key].parameters()  # type: ignore[index, union-attr]
    else:
        own = module._parameters
        parts = [p for end in ("_g", "_v", "_orig") if (p := own.get(f"{key}{end}")) is not None]
    return sum(part.numel() for part in parts)


def _skipped(name: str, tensor: torch.Tensor | None, reason: str, num_params: int | None = None) -> StoredTensor:
    """List a tensor that is not analysed, with the reason."""
    shape = () if tensor is None or tensor.is_nested else tuple(tensor.shape)
    dtype = "" if tensor is None else dtype_name(tensor)
    num_params = 0 if tensor is None or tensor.is_nested else num_params
    return StoredTensor(name, shape, dtype, never_read, reason=reason, num_params=num_params)


def _role(
    module: nn.Module,
    parent: nn.Module,
    key: str,
    name: str,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
) -> LayerRole | str:
    """Return what a parameter does, by its module's class or else by its name and shape, or the reason why it is no weight."""
    cls = _layer_class(module)
    if issubclass(cls, nn.Embedding | nn.EmbeddingBag) and key == "weight":
        return LayerRole("embedding")
    if issubclass(cls, nn.Linear) and key == "weight":
        return LayerRole("dense", heads=_heads(parent))
    if issubclass(cls, nn.Bilinear) and key == "weight":
        return LayerRole("bilinear")
    if issubclass(cls, nn.MultiheadAttention) and len(shape) == 2:
        return LayerRole("dense", heads=_heads(module))
    if issubclass(cls, nn.RNNBase | nn.RNNCellBase):
        gates = GATES.get(getattr(module, "mode", cls.__name__))
        if gates is not None and key.startswith("weight_"):
            return LayerRole(recurrent_type(gates), gates="" if key.startswith("weight_hr") else gates)
    if cls.__name__ == "Conv1D" and hasattr(module, "nf") and key == "weight":  # of transformers, stored (in, out)
        return LayerRole("dense", axes=(1, 0))
    for convolution, layer_type in CONVOLUTIONS.items():
        if issubclass(cls, convolution) and key == "weight":
            return LayerRole(layer_type, groups=_groups(module))
    return role_by_name(name, shape, shapes, unknown_layer=False)


def _groups(convolution: nn.Module) -> int:
    """Return the number of groups of a convolution, which only the code of a traced one says."""
    if hasattr(convolution, "groups") or not isinstance(convolution, torch.jit.ScriptModule):
        return int(getattr(convolution, "groups", 1))
    from htsr.weights.readers.torch.torchscript import groups_in_code

    return groups_in_code(convolution.code) or 1


def _layer_class(module: nn.Module) -> type:
    """Return the class of a module or, for one that TorchScript compiled, the class of torch.nn from which it was compiled."""
    if not isinstance(module, torch.jit.ScriptModule):
        return type(module)
    original = getattr(nn, str(getattr(module, "original_name", "")), None)
    return original if isinstance(original, type) else type(module)


def _heads(attention: nn.Module) -> Heads | None:
    """Return what the attributes of a module say about attention heads; None if they give no number of heads."""
    heads = Heads.of({key: value for key, value in vars(attention).items() if isinstance(value, int)})
    return heads if heads.num else None


def _config(model: nn.Module) -> Mapping[str, object]:
    """Return the configuration that a model of transformers carries, or an empty one."""
    return next(filter(None, (_own_config(module, {}) for module in model.modules())), {})


def _own_config(module: nn.Module, known: dict[int, Mapping[str, object]]) -> Mapping[str, object] | None:
    """Return the configuration that a module of transformers carries, from those already known; None if it has none."""
    config = getattr(module, "config", None)
    if not callable(getattr(config, "to_dict", None)):
        return None
    if id(config) not in known:
        known[id(config)] = dict(config.to_dict())  # type: ignore[union-attr]
    return known[id(config)]


def _computed(module: nn.Module) -> list[str]:
    """Return the names of the tensors that a parametrization or a hook computes."""
    names = list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]
    return names + [name for name, _ in _hooks(module)]


def _hooks(module: nn.Module) -> list[tuple[str, Callable[[], torch.Tensor]]]:
    """Return the tensors that hooks of the older weight_norm, spectral_norm or pruning compute, each with a function to do so."""
    found: list[tuple[str, Callable[[], torch.Tensor]]] = []
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            found.append((hook.name, partial(hook.compute_weight, module)))
        elif isinstance(hook, SpectralNorm):
            found.append((hook.name, partial(hook.compute_weight, module, do_power_iteration=False)))
        elif isinstance(hook, BasePruningMethod):
            found.append((hook._tensor_name, partial(hook.apply_mask, module)))
    return found


def _weight(module: nn.Module, key: str, rows: slice | None) -> torch.Tensor:
    """Return the detached tensor that a layer computes with: its parameter, or what is computed from its parameters."""
    with torch.no_grad():
        tensor = as_tensor(_computed_weight(module, key))
        return tensor if rows is None else tensor[rows]


def _computed_weight(module: nn.Module, key: str) -> torch.Tensor:
    # Hooks set the attribute only during a forward pass, so it may be stale: ask them to compute it.
    """Return a tensor of a module, computed in evaluation mode if a parametrization or a hook computes it."""
    hooked = dict(_hooks(module))
    if key in hooked:
        return hooked[key]()
    if not parametrize.is_parametrized(module, key):
        return getattr(module, key)
    # In training mode a parametrization may update its buffers when read: spectral_norm runs a power iteration.
    parts = list(module.parametrizations[key].modules())  # type: ignore[index, union-attr]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        return getattr(module, key)
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _of_bitsandbytes(module: nn.Module, key: str, parameter: torch.Tensor, name: str, longkey: str) -> StoredTensor:
    """List a parameter of bitsandbytes, which its own library dequantises."""
    kind = type(parameter).__name__
    shape = tuple(parameter.shape)
    if parameter.is_floating_point():  # it is quantised when it is moved to a device
        return StoredTensor(name, shape, dtype_name(parameter), partial(_weight, module, key), longkey)
    if kind == "Params4bit":
        state = getattr(parameter, "quant_state", None)
        shape = shape if state is None else tuple(state.shape)
        how = "" if state is None else str(state.quant_type)
    else:
        how = "" if _row_maxima(module, parameter) is None else "int8"
    if not how:
        return _skipped(
            name, parameter, "quantised by bitsandbytes, without its scales: run one batch through the model first"
        )
    return StoredTensor(
        key=name,
        shape=shape,
        dtype=how,
        read=partial(_dequantised_by_bitsandbytes, module, key),
        longkey=longkey,
        quantised=True,
        note=f"dequantised from {how} of bitsandbytes",
    )


def _row_maxima(module: nn.Module, parameter: torch.Tensor) -> torch.Tensor | None:
    """Return the largest absolute value of each row of an 8-bit weight of bitsandbytes, which is kept in one of two places."""
    found = getattr(parameter, "SCB", None)
    return getattr(getattr(module, "state", None), "SCB", None) if found is None else found


def _dequantised_by_bitsandbytes(module: nn.Module, key: str, rows: slice | None) -> torch.Tensor:
    """Return a weight of bitsandbytes as its library dequantises it, or some of its rows."""
    from bitsandbytes import functional  # type: ignore[import-not-found, unused-ignore]

    parameter = getattr(module, key)
    with torch.no_grad():
        if type(parameter).__name__ == "Params4bit":
            weight = functional.dequantize_4bit(parameter.data, parameter.quant_state)
        else:
            maxima = _row_maxima(module, parameter)
            assert maxima is not None
            weight = functional.int8_vectorwise_dequant(parameter.data, maxima)
    return as_tensor(weight if rows is None else weight[rows])


def _quantised(module: nn.Module, name: str, path: str) -> StoredTensor:
    """List the weight of a layer of ``torch.ao.nn.quantized``, which is a method and not a parameter."""
    tensor = module.weight()  # type: ignore[operator]
    if not isinstance(tensor, torch.Tensor) or not tensor.is_quantized:
        return StoredTensor(
            name,
            (),
            "",
            never_read,
            reason=f"layer type {type(module).__name__}: quantized, not analysed",
            num_params=0,
        )
    dtype = dtype_name(tensor)
    return StoredTensor(
        key=f"{name}.weight".lstrip("."),
        shape=tuple(tensor.shape),
        dtype=dtype,
        read=partial(_unpacked, module),
        longkey=f"{path}.weight".lstrip("."),
        quantised=True,
        note=f"dequantised from {dtype}",
    )


def _quantised_recurrent(module: nn.Module, name: str, path: str) -> list[StoredTensor]:
    """List the weights of a recurrent layer of ``torch.ao.nn.quantized.dynamic``."""
    gates = GATES.get(getattr(module, "mode", type(module).__name__), "")
    listed = []
    for key, tensor in module.get_weight().items():  # type: ignore[operator]
        dtype = dtype_name(tensor)
        listed.append(
            StoredTensor(
                key=f"{name}.{key}".lstrip("."),
                shape=tuple(tensor.shape),
                dtype=dtype,
                read=partial(_unpacked_recurrent, module, key),
                longkey=f"{path}.{key}".lstrip("."),
                role=LayerRole(recurrent_type(gates), gates=gates),
                quantised=tensor.is_quantized,
                note=f"dequantised from {dtype}" if tensor.is_quantized else "",
            )
        )
    return listed


def _unpacked_recurrent(module: nn.Module, key: str, rows: slice | None) -> torch.Tensor:
    """Return a dequantised weight of a recurrent layer, or some of its rows."""
    tensor = as_tensor(module.get_weight()[key])  # type: ignore[operator]
    return tensor if rows is None else tensor[rows]


def _unpacked(module: nn.Module, rows: slice | None) -> torch.Tensor:
    """Return the dequantised weight of a layer of ``torch.ao.nn.quantized``, or some of its rows."""
    tensor = module.weight().dequantize()  # type: ignore[operator]
    return tensor if rows is None else tensor[rows]
