"""Weights of a ``.safetensors`` file, or of a directory of them (a sharded checkpoint, with or without its index)."""

from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.names import natural_order, without_common_prefix
from htsr.weights.readers.shards import check_shards_complete, config_beside, shard_files

# The format's words for types, in torch's.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DTYPES |= {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


def read_safetensors(path: Path) -> Listing:
    """List the tensors of a file or of all ``*.safetensors`` files of a directory; only the headers are read.

    The format keeps no module order, so names are sorted with their numbers compared as numbers: layer 10 comes
    after layer 2.

    Args:
        path: A file, or a directory that holds at least one.

    Returns:
        The tensors, each read from its own file when asked for.

    Raises:
        InputError: If a file is not readable as safetensors, a shard is missing, or a name stands in two files.
    """
    files = shard_files(path, "*.safetensors") if path.is_dir() else [path]
    if path.is_dir():
        check_shards_complete(path, {file.name for file in files}, "safetensors")
    where: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for file in files:
        for key, shape, dtype in _header(file):
            if key in where:
                raise InputError(
                    f"{path}: the tensor {key!r} stands in both {where[key][0].name} and {file.name}: expected the shards "
                    "of one checkpoint; pass one file"
                )
            where[key] = (file, shape, dtype)

    names = without_common_prefix(where, "module.")
    tensors = []
    for key in sorted(where, key=natural_order):
        file, shape, dtype = where[key]
        tensors.append(
            StoredTensor(names[key], shape, DTYPES.get(dtype, dtype.lower()), partial(_load, file, key), longkey=key)
        )
    return Listing(str(path), tensors, config_beside(path))


def _header(file: Path) -> list[tuple[str, tuple[int, ...], str]]:
    try:
        with safe_open(file, framework="pt") as handle:
            slices = [(key, handle.get_slice(key)) for key in handle.keys()]
            return [(key, tuple(part.get_shape()), part.get_dtype()) for key, part in slices]
    except SafetensorError as err:
        size = file.stat().st_size
        raise InputError(
            f"{file}: not a readable safetensors file ({size:,} bytes; the reader says: {err}): it is truncated or of "
            "another format; download or save it again"
        ) from err


def _load(file: Path, key: str, rows: slice | None) -> torch.Tensor:
    with safe_open(file, framework="pt") as handle:
        return handle.get_tensor(key) if rows is None else handle.get_slice(key)[rows]
