"""Find and read the constants of an ONNX model: initializers, values of Constant nodes, sparse and external tensors."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from htsr.errors import InputError
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.optional import import_optional

KIND = "ONNX file"
# The way from the model to a message inside it: names of fields, and positions in those that repeat.
Address = tuple[tuple[str, int | None], ...]
# A sparse tensor that unpacks to more elements than this, or to more than a thousand for each one it stores, is not unpacked.
MAX_SPARSE, MAX_SPARSE_GROWTH = 2**28, 1000


@dataclass(frozen=True)
class Constant:
    """A tensor that a model stores.

    Attributes:
        name: The name by which operations refer to it.
        address: Where it is in the model.
        shape: Its shape.
        dtype: Its type, as torch names it.
    """

    name: str
    address: Address
    shape: tuple[int, ...]
    dtype: str


def parse_model(path: Path) -> Any:
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
    if not model.graph.node and not model.graph.initializer and not model.graph.sparse_initializer:
        raise unreadable_file(path, KIND, InputError("it contains no graph"))
    return model


def initializers(graph: Any, address: Address) -> list[Constant]:
    """Return the initializers of a graph."""
    dense = [_tensor(t.name, t, (*address, ("initializer", i))) for i, t in enumerate(graph.initializer)]
    sparse = [_sparse(t.values.name, t, (*address, ("sparse_initializer", i)))
              for i, t in enumerate(graph.sparse_initializer)]  # fmt: skip
    return dense + sparse


def constant_of_node(node: Any, address: Address) -> Constant | None:
    """Return the value of a Constant node; None if it is text or missing."""
    for number, attribute in enumerate(node.attribute):
        place = (*address, ("attribute", number))
        match attribute.name:
            case "value":
                return _tensor(node.output[0], attribute.t, (*place, ("t", None)))
            case "sparse_value":
                return _sparse(node.output[0], attribute.sparse_tensor, (*place, ("sparse_tensor", None)))
            case "value_float" | "value_int":
                dtype = {"value_float": "float32", "value_int": "int64"}[attribute.name]
                return Constant(node.output[0], place, (), dtype)
            case "value_floats" | "value_ints":
                values = attribute.floats if attribute.name == "value_floats" else attribute.ints
                dtype = {"value_floats": "float32", "value_ints": "int64"}[attribute.name]
                return Constant(node.output[0], place, (len(values),), dtype)
    return None


def read_constant(path: Path, model: Any, constant: Constant, rows: slice | None = None) -> np.ndarray:
    """Return the values of a constant, or some of its rows."""
    onnx = import_optional("onnx", "onnx", path)
    message = model
    for field, position in constant.address:
        message = getattr(message, field) if position is None else getattr(message, field)[position]
    if isinstance(message, onnx.AttributeProto):
        array = np.asarray(onnx.helper.get_attribute_value(message), dtype=constant.dtype)
    elif isinstance(message, onnx.SparseTensorProto):
        array = _unpacked(path, message)
    else:
        return _values(path, message, rows)
    return array if rows is None else array[rows]


def _tensor(name: str, tensor: Any, address: Address) -> Constant:
    return Constant(name, address, _shape(tensor.dims), _dtype(tensor.data_type))


def _sparse(name: str, tensor: Any, address: Address) -> Constant:
    return Constant(name, address, _shape(tensor.dims), _dtype(tensor.values.data_type))


def _shape(dims: Sequence[int]) -> tuple[int, ...]:
    """Return dimensions as a shape; a negative one, which only damage writes, counts as none."""
    return tuple(max(int(size), 0) for size in dims)


def _dtype(code: int) -> str:
    """Return torch's name of an ONNX data type."""
    import onnx

    try:
        name = onnx.TensorProto.DataType.Name(code).lower()
    except ValueError:
        return f"type {code}, which ONNX does not have"
    short = {"float": "float32", "double": "float64"}
    for bits in ("float8", "float4"):
        if name.startswith(f"{bits}e"):
            return f"{bits}_{name.removeprefix(bits)}"
    return short.get(name, name)


def _values(path: Path, tensor: Any, rows: slice | None) -> np.ndarray:
    """Return a dense tensor, or some of its rows; of an external file, only their bytes are read."""
    import onnx

    shape = tuple(tensor.dims)
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        try:
            array = onnx.numpy_helper.to_array(tensor)
        except Exception as err:  # fewer values than the shape needs, or a type that ONNX does not have
            raise unreadable_file(path, KIND, err) from err
        return array if rows is None else array[rows]
    row_bits = _bits(tensor.data_type) * math.prod(shape[1:])
    whole = (row_bits * math.prod(shape[:1]) + 7) // 8
    piece = onnx.TensorProto(data_type=tensor.data_type, dims=shape)
    if rows is None or row_bits % 8:  # 4-bit rows may share a byte
        piece.raw_data = _external_bytes(path, tensor, whole, 0, whole)
        array = onnx.numpy_helper.to_array(piece)
        return array if rows is None else array[rows]
    start, stop, _ = rows.indices(shape[0])
    piece.dims[0] = max(stop - start, 0)
    piece.raw_data = _external_bytes(path, tensor, whole, start * row_bits // 8, piece.dims[0] * row_bits // 8)
    return onnx.numpy_helper.to_array(piece)


def _bits(data_type: int) -> int:
    """Return how many bits one value of an ONNX data type takes."""
    import onnx

    name = onnx.TensorProto.DataType.Name(data_type)
    for bits in (2, 4):
        if name.startswith((f"INT{bits}", f"UINT{bits}", f"FLOAT{bits}")) and name[-2:] not in ("16", "32", "64"):
            return bits
    return 8 * int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).itemsize)


def _external_bytes(path: Path, tensor: Any, whole: int, first: int, count: int) -> bytes:
    """Return some of the bytes of a tensor in an external file, whose place and size are checked first."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = external_file(path, location)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or whole)
    except ValueError as err:
        raise InputError(f"{path}: its external data in {location!r:.100} has a damaged offset or length") from err
    size = file.stat().st_size
    if length != whole or offset < 0 or offset + length > size:
        raise InputError(
            f"{path}: expected {whole:,} bytes of external data within {location!r:.100} ({size:,} bytes), got {length:,} bytes "
            f"at offset {offset:,}"
        )
    with file.open("rb") as opened:
        opened.seek(offset + first)
        return opened.read(count)


def external_file(path: Path, location: str) -> Path:
    """Return the file of a model's external data; raise InputError unless it is a regular file beside or below the model."""
    # A cache such as Hugging Face's keeps links to both files in one folder and the files themselves in another, so a file
    # that really lies beside the model is allowed, too.
    inside = not os.path.isabs(location) and ".." not in Path(location).parts and "\0" not in location and location
    file = path.parent / location if inside else path.parent
    if inside and not file.exists():
        raise InputError(f"{path}: its external data is missing: no file {location!r:.100} in its directory")
    real = file.resolve()
    beside = real.is_relative_to(path.parent.resolve()) or real.parent == path.resolve().parent
    if not inside or not beside or not real.is_file():
        raise InputError(
            f"{path}: refused to read external data from {location!r:.100}: expected a regular file in the directory of the model"
        )
    return real


def _unpacked(path: Path, sparse: Any) -> np.ndarray:
    """Return a sparse tensor as a dense one; its indices count elements, or are one row of coordinates for each value."""
    values, indices = _values(path, sparse.values, None), _values(path, sparse.indices, None)
    shape, count = tuple(sparse.dims), math.prod(sparse.dims)
    if min(shape, default=1) < 0 or count > min(MAX_SPARSE, MAX_SPARSE_GROWTH * max(values.size, 1)):
        raise InputError(f"{path}: a sparse tensor of {values.size:,} values that unpacks to {count:,}: refused")
    dense = np.zeros(shape, values.dtype)
    try:
        dense[tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, shape)] = values
    except (IndexError, ValueError) as err:
        raise unreadable_file(path, KIND, err) from err
    return dense
