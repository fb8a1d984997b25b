"""List the weights of Keras files, ``.keras`` and ``.h5``, without Keras or TensorFlow."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.readers.archives import KERAS_WEIGHTS, archive_entries, is_archive, unreadable_file
from htsr.weights.readers.hdf5 import check_hdf5, hdf5_datasets, open_hdf5
from htsr.weights.readers.optional import import_optional
from htsr.weights.recurrent import recurrent_type
from htsr.weights.roles import LayerRole

KIND = "Keras file"
# Gates in Keras's order, by torch's letters and by their number. Keras has i, f, c, o for LSTM and z, r, h for GRU.
GATES = {1: "", 3: "zrn", 4: "ifgo"}
MAX_CONFIG_BYTES = 2**26


class _Layer(NamedTuple):
    """A layer of the configuration: the name its author gave it, its class in snake case, its arguments."""

    name: str
    kind: str
    arguments: Mapping[str, Any]


def read_keras(path: Path) -> Listing:
    """List the weights of a Keras model, named after its layers, in the order of the file."""
    import_optional("h5py", "keras", path)
    member = _member(path)
    check_hdf5(path, member)
    try:
        with open_hdf5(path, member) as file:
            weights = file["model_weights"] if "model_weights" in file else file
            layers = dict(_layers(_config(path, file), legacy="model_weights" in file))
            tensors = [_stored(path, member, name, dataset, layers) for name, dataset in hdf5_datasets(weights)]
    except InputError:
        raise
    except Exception as err:  # h5py raises many types of error for damage
        raise unreadable_file(path, KIND, err) from err
    return Listing(str(path), tensors)


def _member(path: Path) -> str:
    """Return the name of the HDF5 file in a ``.keras`` archive; empty for an ``.h5`` file."""
    if not is_archive(path):
        return ""
    there = archive_entries(path, KIND)
    if KERAS_WEIGHTS not in there:
        raise InputError(f"{path}: expected {KERAS_WEIGHTS} in a .keras file, found {', '.join(list(there)[:5])}")
    return KERAS_WEIGHTS


def _config(path: Path, file: Any) -> Mapping[str, Any]:
    """Return the configuration of the model; empty if there is none."""
    if not is_archive(path):
        return json.loads(file.attrs.get("model_config", "{}"))
    entry = archive_entries(path, KIND).get("config.json")
    if entry is None or entry.file_size > MAX_CONFIG_BYTES:
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(entry))


def _layers(config: Mapping[str, Any], legacy: bool, prefix: str = "", name: str = "") -> Iterator[tuple[str, _Layer]]:
    """Yield the place of each layer in the file and the layer, for a model or container with its configuration."""
    # The ``.keras`` format names the layers of each container by class and number, ``layers/dense_1``; the ``.h5`` format
    # (``legacy``) by their own names.
    arguments = config.get("config") if isinstance(config, Mapping) else None
    inner = arguments.get("layers") if isinstance(arguments, Mapping) else None
    counts: dict[str, int] = {}
    for layer in inner if isinstance(inner, list) else ():
        own = layer.get("config") or {}
        kind = _snake(str(layer.get("class_name")))
        count = counts[kind] = counts.get(kind, -1) + 1
        stored = str(own.get("name")) if legacy else f"layers/{kind}{f'_{count}' if count else ''}"
        full = f"{name}.{own.get('name')}".lstrip(".")
        yield f"{prefix}{stored}/", _Layer(full, kind, own)
        yield from _layers(layer, legacy, f"{prefix}{stored}/", full)


def _snake(name: str) -> str:
    """Return a class name in snake case, as keras.src.utils.naming.to_snake_case does."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _stored(path: Path, member: str, name: str, dataset: Any, layers: Mapping[str, _Layer]) -> StoredTensor:
    """List one dataset as a tensor, with the name and the role that its layer gives it."""
    place = f"{name}/"
    parts = name.split("/")
    if len(parts) > 2 and parts[0] == parts[1]:  # the .h5 format repeats the name of the layer
        place = "/".join(parts[1:]) + "/"
    known = max((prefix for prefix in layers if place.startswith(prefix)), key=len, default="")
    rest = place.removeprefix(known).rstrip("/").split("/")
    layer = layers.get(known) or _Layer(
        "", re.sub(r"_\d+$", "", parts[-3] if parts[-2:-1] == ["vars"] else parts[0]), {}
    )
    *inside, variable = [part for part in rest if part not in ("vars", "layers", "cell")]
    inside = [part for part in inside if part != layer.name.split(".")[-1] and not part.endswith("_cell")]
    recurrent = "cell" in rest or any(part.endswith("_cell") for part in rest)
    shape, role, variable = _role(tuple(dataset.shape), variable, inside, layer, recurrent)
    key = ".".join(part for part in (layer.name, *inside, variable) if part)
    reason = None
    if dataset.external or dataset.is_virtual:
        reason = "not read, since its values are in another file"
    elif dataset.nbytes > max(2**28, 100 * path.stat().st_size):
        reason = f"{dataset.nbytes:,} bytes, far more than the file: refused as a decompression bomb"
    return StoredTensor(
        key, shape, dataset.dtype.name, partial(_read, path, member, dataset.name, shape), name, role, reason=reason
    )


def _role(
    shape: tuple[int, ...], variable: str, inside: list[str], layer: _Layer, recurrent: bool
) -> tuple[tuple[int, ...], LayerRole | None, str]:
    """Return the shape to read a weight in, its role, and its name in torch's terms."""
    sides = len(shape)
    if recurrent and sides == 2 and variable in ("0", "1", "kernel", "recurrent_kernel"):
        hidden = variable in ("1", "recurrent_kernel")
        gates = _gates(layer, shape if hidden else None)
        role = None if gates is None else LayerRole(recurrent_type(gates), (1, 0), gates=gates)
        return shape, role, "weight_hh_l0" if hidden else "weight_ih_l0"
    if variable not in ("0", "kernel", "embeddings", "depthwise_kernel"):
        return shape, None, {"1": "bias", "2": "bias" if recurrent else "2"}.get(variable, variable)
    if sides == 2 and (layer.kind == "embedding" or variable == "embeddings"):
        return shape, LayerRole("embedding"), "weight"
    if sides == 2:
        return shape, LayerRole("dense", (1, 0)), "weight"
    if layer.kind.startswith("depthwise") or variable == "depthwise_kernel":
        shape = (*shape[:-2], 1, shape[-2] * shape[-1])
    if "conv" in layer.kind and 3 <= sides <= 5:
        axes = (sides - 1, sides - 2, *range(sides - 2))
        groups = layer.arguments.get("groups", 1)
        transposed = "_transpose" * ("transpose" in layer.kind)
        if not isinstance(groups, int) or groups < 1 or shape[-1] % groups:
            groups = 1
        return shape, LayerRole(f"conv{transposed}{sides - 2}d", axes, groups=groups), "weight"
    if sides == 3 and "attention" in layer.kind:  # (in, heads, size); the output is (heads, size, out)
        flat = (shape[0] * shape[1], shape[2]) if "output" in inside[-1] else (shape[0], shape[1] * shape[2])
        return flat, LayerRole("dense", (1, 0)), "weight"
    return shape, None, "weight"


def _gates(layer: _Layer, hidden: tuple[int, ...] | None) -> str | None:
    """Return the gates of a recurrent layer, by its class or by its recurrent kernel ``(units, gates * units)``."""
    inner = layer.arguments.get("layer")  # of a Bidirectional
    kind = _snake(str(inner.get("class_name"))) if isinstance(inner, Mapping) else layer.kind
    by_class = {"lstm": "ifgo", "gru": "zrn", "simple_rnn": ""}
    if kind in by_class:
        return by_class[kind]
    return GATES.get(hidden[1] // hidden[0]) if hidden and hidden[0] and hidden[1] % hidden[0] == 0 else None


def _read(path: Path, member: str, name: str, shape: tuple[int, ...], rows: slice | None) -> torch.Tensor:
    """Return a dataset as a tensor of this shape, or some of its rows."""
    try:
        with open_hdf5(path, member) as file:
            array = file[name][()]
    except Exception as err:  # h5py raises many types of error for damage
        raise unreadable_file(path, KIND, err) from err
    tensor = as_tensor(array).reshape(shape)
    return tensor if rows is None else tensor[rows]
