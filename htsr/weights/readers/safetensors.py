"""List the weights of a ``.safetensors`` file, or of a directory of shards with or without an index."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.metadata import bounded_metadata
from htsr.weights.names import clean_names, natural_order
from htsr.weights.readers.archives import unreadable_file
from htsr.weights.readers.json_files import with_config
from htsr.weights.readers.shards import duplicate_tensor

# torch's names for the types of the format.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
    "C64": "complex64",
}
DTYPES |= {f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


def read_safetensors(path: Path, files: Sequence[Path]) -> Listing:
    """List the tensors of the files of a checkpoint in natural order, reading only the headers."""
    metadata: dict[str, str] = {}
    where: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for file in files:
        tensors_of_file, said = _header(file)
        metadata = said | metadata
        for key, shape, dtype in tensors_of_file:
            if key in where:
                raise duplicate_tensor(path, key, where[key][0], file)
            where[key] = (file, shape, dtype)

    names = clean_names(where)
    tensors = []
    # the format does not keep the order of the model
    for key in sorted(where, key=natural_order):
        file, shape, dtype = where[key]
        tensors.append(
            StoredTensor(names[key], shape, DTYPES.get(dtype, dtype.lower()), partial(_load, file, key), longkey=key)
        )
    return with_config(Listing(str(path), tensors, metadata=bounded_metadata(metadata)), path)


def _header(file: Path) -> tuple[list[tuple[str, tuple[int, ...], str]], dict[str, str]]:
    """Return name, shape and type of every tensor of a file, and the metadata of the file."""
    try:
        with safe_open(file, framework="pt") as handle:
            slices = [(key, handle.get_slice(key)) for key in handle.keys()]
            tensors = [(key, tuple(part.get_shape()), part.get_dtype()) for key, part in slices]
            return tensors, dict(handle.metadata() or {})
    except SafetensorError as err:
        raise unreadable_file(file, "safetensors file", err) from err


def _load(file: Path, key: str, rows: slice | None) -> torch.Tensor:
    """Return a tensor, or some of its rows."""
    with safe_open(file, framework="pt") as handle:
        return handle.get_tensor(key) if rows is None else handle.get_slice(key)[rows]
