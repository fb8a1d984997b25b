"""List the weights of Keras models: files, ``.keras`` and ``.h5``, without Keras or TensorFlow, and models in memory."""

import json
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.names import without_only_parent
from htsr.weights.readers.archives import archive_entries, is_archive, unreadable_file
from htsr.weights.readers.keras.hdf5 import hdf5_datasets, open_hdf5, why_unreadable
from htsr.weights.readers.keras.layers import KerasLayer, Variable, layer_at, layers_of, variable
from htsr.weights.readers.optional import import_optional

KIND = "Keras file"
KERAS_WEIGHTS = "model.weights.h5"
MAX_CONFIG_BYTES = 2**26


def read_keras(path: Path) -> Listing:
    """List the weights of a Keras file, named after its layers, in the order of the file."""
    import_optional("h5py", "keras", path)
    member = _member(path)
    try:
        with open_hdf5(path, member) as file:
            legacy = "model_weights" in file
            weights = file["model_weights"] if legacy else file
            layers = dict(layers_of(_config(path, file)))
            tensors = [
                _stored(path, member, weights, name, dataset, layers, legacy)
                for name, dataset in hdf5_datasets(weights)
            ]
    except InputError:
        raise
    except Exception as err:  # h5py raises many types of error for damage
        raise unreadable_file(path, KIND, err) from err
    return Listing(str(path), _without_only_layer(tensors))


def read_keras_model(model: Any) -> Listing:
    """List the weights of a Keras model in memory, under the names that its file would give them."""
    layers = dict(layers_of({"class_name": type(model).__name__, "config": _config_of(model)}))
    tensors, listed = [], set()
    for layer in model.layers:
        for weight in layer.weights:
            listed.add(id(weight))
            tensors.append(_in_memory(weight, [layer.name, *str(weight.path).split("/")], layers))
    tensors += [_in_memory(item, str(item.path).split("/"), layers) for item in model.weights if id(item) not in listed]
    return Listing(f"Keras model {model.name}", _without_only_layer(tensors))


def _without_only_layer(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Return the tensors without the name of the layer around them if it is the only one and holds several layers."""
    # Keras numbers the layers of a process, so that the same model may be attention in one process and attention_1 in another.
    weights = {stored.key: stored.key for stored in tensors if not stored.key.startswith("optimizer.")}
    names = without_only_parent(weights)
    if len({name.split(".")[0] for name in names.values()}) < 2:  # the cell of a recurrent layer
        return list(tensors)
    return [replace(stored, key=names.get(stored.key, stored.key)) for stored in tensors]


def is_keras_model(source: object) -> bool:
    """Return whether an object is a Keras model; Keras is not imported to find out."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(source, keras.Model)


def _config_of(model: Any) -> Any:
    """Return the configuration of a model in memory; empty if its class does not write one."""
    try:
        return json.loads(model.to_json())["config"]
    except Exception:  # a subclass of Model without get_config, or one whose settings are not JSON
        return {}


def _in_memory(weight: Any, path: Sequence[str], layers: Mapping[str, KerasLayer]) -> StoredTensor:
    """List a variable of a model in memory."""
    *names, own = _names_in_path(path)
    found = variable(layer_at(names, [], layers), own, tuple(weight.shape))
    read = partial(_read_variable, weight, found.axes, found.shape)
    names = _without_cell(found, names, [], layers)
    return _listed(found, names, tuple(weight.shape), str(weight.dtype), read, weight.path, id(weight))


def _names_in_path(path: Sequence[str]) -> list[str]:
    """Return the names in a path that begins with a layer of the model and goes on with Keras's path of the variable."""
    # Keras's path may repeat the layer, after the Sequential that built it; a stack of cells is no layer that anybody named
    layer, *inside = path
    if layer in inside[:-1]:
        inside = inside[inside.index(layer) + 1 :]
    return [name for name in (layer, *inside) if name != "stacked_rnn_cells"]


def _without_cell(
    found: Variable, names: Sequence[str], stored: Sequence[str], layers: Mapping[str, KerasLayer]
) -> list[str]:
    """Return the names of the layers around a variable without that of the cell which a recurrent layer made for itself."""
    implied = ".".join(names) not in layers and (not stored or stored[-1] == "cell")
    return list(names[:-1] if found.name.startswith("weight_") and implied and len(names) > 1 else names)


def _read_variable(
    weight: Any, axes: tuple[int, ...] | None, shape: tuple[int, ...] | None, rows: slice | None
) -> torch.Tensor:
    """Return a variable of a model in memory as a tensor, or some of its rows."""
    value = weight.value
    tensor = as_tensor(value if isinstance(value, torch.Tensor) else weight.numpy())
    return _arranged(tensor, axes, shape, rows)


def _arranged(
    tensor: torch.Tensor, axes: tuple[int, ...] | None, shape: tuple[int, ...] | None, rows: slice | None
) -> torch.Tensor:
    """Return a tensor, or some of its rows, after its axes were put in an order and a shape."""
    tensor = tensor if axes is None else tensor.permute(axes)
    tensor = tensor if shape is None else tensor.reshape(shape)
    return tensor if rows is None else tensor[rows]


def _listed(
    found: Variable,
    names: Sequence[str],
    shape: tuple[int, ...],
    dtype: str,
    read: Any,
    longkey: str,
    identity: Any = None,
) -> StoredTensor:
    """List a variable under the names of the layers around it."""
    reason = found.reason
    if reason is None and re.fullmatch("u?int[48]", dtype) and len(shape) > 1:
        reason = (
            f"{dtype}, quantised by Keras: save the model before Model.quantize, or divide its kernels by their scales"
        )
    return StoredTensor(
        key=".".join((*names, found.name)),
        shape=found.shape or shape,
        dtype=dtype,
        read=read,
        longkey=longkey,
        role=found.role,
        identity=identity,
        reason=reason,
        note=found.note,
    )


def _member(path: Path) -> str:
    """Return the name of the HDF5 file in a ``.keras`` archive; empty for an ``.h5`` file."""
    if not is_archive(path):
        return ""
    there = archive_entries(path, KIND)
    if KERAS_WEIGHTS not in there:
        raise InputError(f"{path}: expected {KERAS_WEIGHTS} in a .keras file, found {', '.join(list(there)[:5])}")
    return KERAS_WEIGHTS


def _config(path: Path, file: Any) -> object:
    """Return the configuration of the model; empty if there is none."""
    if not is_archive(path):
        text = file.attrs.get("model_config", "{}")
        return json.loads(text) if isinstance(text, str | bytes) and len(text) <= MAX_CONFIG_BYTES else {}
    entry = archive_entries(path, KIND).get("config.json")
    if entry is None or entry.file_size > MAX_CONFIG_BYTES:
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(entry))


def _stored(
    path: Path, member: str, weights: Any, name: str, dataset: Any, layers: Mapping[str, KerasLayer], legacy: bool
) -> StoredTensor:
    """List one dataset as a tensor, with the name and the role that its layer gives it."""
    reason = why_unreadable(dataset, path.stat().st_size)
    *groups, own = name.split("/")
    if legacy or "vars" not in groups:  # each layer repeats its name, then come the names of Keras
        names = _names_in_path([*groups, own])[:-1]
        stored: list[str] = []
    else:
        names, stored = _names_of_groups(weights, groups)
    shape = () if dataset is None else tuple(dataset.shape or ())
    found = variable(layer_at(names, stored, layers), own, shape)
    if reason is not None or groups[:1] == ["optimizer"]:
        key = ".".join([*groups, own] if groups[:1] == ["optimizer"] else [*names, found.name])
        dtype = "" if dataset is None else dataset.dtype.name
        none = dataset is None or groups[:1] == ["optimizer"]
        reason = reason or "optimizer state, not a weight"
        return StoredTensor(key, shape, dtype, never_read, name, reason=reason, num_params=0 if none else None)
    read = partial(_read, path, member, dataset.name, found.axes, found.shape)
    return _listed(found, _without_cell(found, names, stored, layers), shape, dataset.dtype.name, read, name)


def _names_of_groups(weights: Any, groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the layers around a variable, which their groups keep as attributes, and the groups of these."""
    names, stored = [], []
    for depth, group in enumerate(groups):
        if group in ("vars", "layers", "cells"):
            continue
        place = "/".join(groups[: depth + 1])
        own = weights[f"{place}/vars"].attrs.get("name") if f"{place}/vars" in weights else None
        own = own if isinstance(own, str) and own else group
        if own == "stacked_rnn_cells":
            continue
        names.append(own)
        stored.append(group)
    return names, stored


def _read(
    path: Path,
    member: str,
    name: str,
    axes: tuple[int, ...] | None,
    shape: tuple[int, ...] | None,
    rows: slice | None,
) -> torch.Tensor:
    """Return a dataset as a tensor with its axes in this order and this shape, or some of its rows."""
    try:
        with open_hdf5(path, member) as file:
            array = file[name][()]
    except Exception as err:  # h5py raises many types of error for damage
        raise unreadable_file(path, KIND, err) from err
    return _arranged(as_tensor(array), axes, shape, rows)
