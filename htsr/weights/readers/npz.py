"""List the weights of numpy's ``.npz`` archives."""

import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from htsr.errors import InputError
from htsr.files.archive import DOCUMENT
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.names import clean_names
from htsr.weights.readers.archives import archive_entries, unreadable_file
from htsr.weights.readers.json_files import with_config

KIND = "npz archive"
# The arrays in a capture of a run that a Monitor watched.
OF_CAPTURE = {"about", "eigenvalues"}


def read_npz(path: Path) -> Listing:
    """List the arrays of an archive in its order, reading only their headers."""
    entries = archive_entries(path, KIND)
    if DOCUMENT in entries:
        raise InputError(
            f"{path}: expected weights, got a result that htsr saved, which holds none: htsr.load reads it, and htsr report "
            "writes its page"
        )
    arrays = {name.removesuffix(".npy"): entry for name, entry in entries.items() if name.endswith(".npy")}
    if set(arrays) == OF_CAPTURE:
        run = str(path.parent.parent) if path.parent.name == "captures" else "directory of the run"
        raise InputError(
            f"{path}: expected weights, got a capture of a training, which holds eigenvalues: open the run with "
            f"htsr.History({run!r})"
        )
    names = clean_names(arrays)
    tensors = []
    for key, entry in arrays.items():
        shape, dtype = _header(path, entry)
        reason = None
        if dtype.hasobject:
            reason = "not read, since it is an array of objects: a pickle, which could run any program"
        elif entry.file_size < dtype.itemsize * int(np.prod(shape, dtype=object)):
            reason = f"its header promises more values than its {entry.file_size:,} bytes hold"
        tensors.append(
            StoredTensor(
                names[key], shape, dtype.name, partial(_read, path, entry.filename), longkey=key, reason=reason
            )
        )
    return with_config(Listing(str(path), tensors), path)


def _header(path: Path, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and type of an array from its header."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return shape, dtype
    except Exception as err:  # numpy parses the header as a Python literal, so damage can raise anything
        raise unreadable_file(path, KIND, InputError(f"{entry.filename}: {err}")) from err


def _read(path: Path, name: str, rows: slice | None) -> torch.Tensor:
    """Return an array as a tensor, or some of its rows."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as err:
        raise unreadable_file(path, KIND, InputError(f"{name}: {err}")) from err
    return as_tensor(array if rows is None else array[rows])
