"""List the weights of an ONNX graph."""

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.optional import import_optional
from htsr.weights.recurrent import recurrent_type
from htsr.weights.roles import LayerRole

KIND = "ONNX file"
# Names that an exporter invents for a weight after losing its own name. The path of the operation then takes their place:
# "encoder.layer.0" for "/encoder/layer.0/MatMul".
ANONYMOUS = re.compile(r"^(onnx::.*|val_?\d+|_?v?_?\d+|const_.*|)$")
# Gates in the order of the ONNX standard, by torch's letters. ONNX has i, o, f, c for LSTM and z, r, h for GRU.
GATES = {"LSTM": "iofg", "GRU": "zrn", "RNN": ""}


def read_onnx(path: Path) -> Listing:
    """List the initializers of a graph in its order, each with the role that the operation using it implies."""
    try:
        return Listing(str(path), _tensors(path, _model(path).graph))
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as err:  # names that are not text, types that ONNX does not have
        raise unreadable_file(path, KIND, err) from err


def _tensors(path: Path, graph: Any) -> list[StoredTensor]:
    """List the initializers of a graph."""
    onnx = import_optional("onnx", "onnx", path)
    uses: dict[str, tuple[Any, int]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            uses.setdefault(name, (node, place))
    tensors, names = [], set()
    for number, tensor in enumerate(graph.initializer):
        shape = tuple(tensor.dims)
        role, recurrent, node = _role(tensor.name, shape, uses)
        key = tensor.name
        if ANONYMOUS.match(key) and node is not None and (module := _module(node)):
            key = f"{module}.{recurrent or 'weight'}"
        if key in names:
            key = tensor.name
        names.add(key)
        dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        dtype = {
            "float": "float32",
            "double": "float64",
            "float8e4m3fn": "float8_e4m3fn",
            "float8e5m2": "float8_e5m2",
        }.get(dtype, dtype)
        reason = "the bias or the initial state of a recurrent layer" if recurrent == "bias" else None
        read = partial(_read, path, number)
        tensors.append(StoredTensor(key, shape, dtype, read, longkey=tensor.name, role=role, reason=reason))
    for sparse in graph.sparse_initializer:
        tensors.append(StoredTensor(sparse.values.name, tuple(sparse.dims), "", never_read, reason="a sparse tensor"))
    return tensors


def _role(name: str, shape: tuple[int, ...], uses: dict[str, tuple[Any, int]]) -> tuple[LayerRole | None, str, Any]:
    """Return the role of an initializer by its first use, its name if its layer is recurrent, and the operation."""
    turned = False
    for _ in range(4):
        if name not in uses:
            return None, "", None
        node, place = uses[name]
        if node.op_type not in ("Identity", "Cast", "Transpose") or not node.output:
            break
        turned ^= node.op_type == "Transpose"
        name = node.output[0]
    attributes = {attribute.name: attribute for attribute in node.attribute}
    sides = len(shape)
    if node.op_type in ("Gemm", "MatMul") and sides == 2:
        stored_out_in = place == 0 or (
            node.op_type == "Gemm" and "transB" in attributes and attributes["transB"].i == 1
        )
        return LayerRole("dense", axes=None if stored_out_in != turned else (1, 0)), "", node
    if node.op_type in ("Conv", "ConvTranspose") and place == 1 and 3 <= sides <= 5:
        groups = max(int(attributes["group"].i), 1) if "group" in attributes else 1
        groups = groups if shape[0] % groups == 0 else 1
        return LayerRole(f"conv{'_transpose' * (node.op_type == 'ConvTranspose')}{sides - 2}d", groups=groups), "", node
    if node.op_type == "Gather" and place == 0 and sides == 2:
        return LayerRole("embedding"), "", node
    if node.op_type in GATES and place > 2:
        return None, "bias", node
    if node.op_type in GATES and place in (1, 2) and sides == 3:
        gates = GATES[node.op_type]
        return (
            LayerRole(recurrent_type(gates), gates=gates),
            ("weight_ih_l0", "weight_hh_l0")[place - 1],
            node,
        )
    return None, "", node


def _module(node: Any) -> str:
    """Return the module from which an operation was exported, as torch's exporters record it; empty if they did not."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":  # the newer exporter: "['', 'encoder', 'encoder.fc', 'linear']"
            names = re.findall(r"'([^']*)'", entry.value)
            return names[-2] if len(names) > 1 else ""
    return ".".join(part for part in node.name.split("/")[:-1] if part)  # the older exporter: /encoder/fc/MatMul


def _model(path: Path) -> Any:
    """Return the parsed file, from a cache if the file has not changed."""
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # protobuf can only read a whole file, at most 2 GB; external files are read one tensor at a time
def _parsed(path: Path, modified: int, size: int) -> Any:
    """Parse a file and check that it holds a graph."""
    onnx = import_optional("onnx", "onnx", path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as err:  # protobuf's errors do not share a base class with those of the text decoder
        raise unreadable_file(path, KIND, err) from err
    if not model.graph.node and not model.graph.initializer:
        raise unreadable_file(path, KIND, InputError("it contains no graph"))
    return model


def _read(path: Path, number: int, rows: slice | None) -> torch.Tensor:
    """Return an initializer as a tensor, or some of its rows."""
    onnx = import_optional("onnx", "onnx", path)
    tensor = _model(path).graph.initializer[number]
    try:
        array = onnx.numpy_helper.to_array(tensor, base_dir=str(path.parent))
    except Exception as err:  # an external file is missing, outside the directory or too short
        raise unreadable_file(path, KIND, err) from err
    if array.dtype.name not in ("float16", "float32", "float64") and array.dtype.kind in "fV":  # ml_dtypes
        array = array.astype("float32")
    return as_tensor(array if rows is None else array[rows])


def external_files(path: Path) -> list[Path]:
    """Return the files beside a graph, or below, that hold the values of its tensors; some may be missing."""
    names = {
        entry.value
        for tensor in _all_tensors(_model(path).graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [
        path.parent / name for name in sorted(names) if not Path(name).is_absolute() and ".." not in Path(name).parts
    ]


def _all_tensors(graph: Any) -> Iterator[Any]:
    """Yield the tensors of a graph, of its operations and of the graphs inside them."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_tensors(inner)
