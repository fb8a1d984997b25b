"""Weights of numpy's ``.npz`` archives."""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.names import without_common_prefix
from htsr.weights.readers.archives import archive_entries, unreadable_file
from htsr.weights.readers.shards import config_beside

KIND = "npz archive"


def read_npz(path: Path) -> Listing:
    """List the arrays of an archive; only the headers are read.

    Args:
        path: A file that ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

    Returns:
        The arrays in the order of the archive. Arrays of objects, which are pickles, have a reason.

    Raises:
        InputError: If it is no readable archive.
    """
    arrays = {
        name.removesuffix(".npy"): entry for name, entry in archive_entries(path, KIND).items() if name.endswith(".npy")
    }
    names = without_common_prefix(arrays, "module.")
    tensors = []
    for key, entry in arrays.items():
        shape, dtype = _header(path, entry)
        reason = None
        if dtype.hasobject:
            reason = "an array of objects, a pickle that could run any program: not read"
        elif entry.file_size < dtype.itemsize * int(np.prod(shape, dtype=object)):
            reason = f"its header says more values than its {entry.file_size:,} bytes hold"
        tensors.append(
            StoredTensor(
                names[key], shape, dtype.name, partial(_read, path, entry.filename), longkey=key, reason=reason
            )
        )
    return Listing(str(path), tensors, config_beside(path))


def _header(path: Path, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return shape, dtype
    except Exception as err:  # numpy evaluates the header as a literal, and damage can make that fail in any way
        raise unreadable_file(path, KIND, InputError(f"{entry.filename}: {err}")) from err


def _read(path: Path, name: str, rows: slice | None) -> torch.Tensor:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, OSError, zipfile.zlib.error) as err:  # type: ignore[attr-defined]
        raise unreadable_file(path, KIND, InputError(f"{name}: {err}")) from err
    return as_tensor(array if rows is None else array[rows])
