"""List the weights of files that torch wrote: ``.pt``, ``.pth``, ``.ckpt``, ``pytorch_model*.bin``, and TorchScript and ``.pt2``.

These files are pickles, which can hold any program. They are only opened with ``weights_only=True``, which executes none of it; a
file that imports more than tensors need is refused with the list of what it imports.
"""

import itertools
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, OptimizerParameter, StoredTensor
from htsr.weights.readers.archives import TORCH_MAGIC, archive_entries, is_archive, unreadable_file
from htsr.weights.readers.json_files import with_config
from htsr.weights.readers.shards import duplicate_tensor
from htsr.weights.readers.torch.exported import is_exported, read_exported
from htsr.weights.readers.torch.torchscript import is_torchscript, read_torchscript
from htsr.weights.state_dicts import extract_state_dict, read_state_dict

KIND = "torch checkpoint"
# Names that the pickle of a state dict imports.
FOR_TENSORS = re.compile(
    r"torch\.(\w+Storage|_utils\.\w+|Size|device|nn\.parameter\.Parameter)|collections\.OrderedDict|(__builtin__|builtins)\.set"
)
# The number of opcodes that are searched for imports in a file that will be refused anyway.
MAX_OPCODES = 100_000


def read_torch(path: Path, files: Sequence[Path]) -> Listing:
    """List the tensors of the files of a checkpoint, in the order of the files."""
    tensors: list[StoredTensor] = []
    optimized: list[OptimizerParameter] = []
    owner: dict[str, Path] = {}
    for file in files:
        if is_archive(file):
            entries = archive_entries(file, KIND)
            if is_torchscript(entries) and not path.is_dir():
                return read_torchscript(file, entries)
            if is_exported(entries) and not path.is_dir():
                return read_exported(file, entries)
            if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in entries):
                raise InputError(
                    f"{file}: a program of torch.export that keeps its weights in a way that htsr does not read: load it with "
                    "torch.export.load and pass its module()"
                )
        checkpoint = _load(file)
        listing = read_state_dict(checkpoint)
        for parameter in listing.optimized:
            states = {
                kind: replace(state, read=partial(_read_state, file, (*parameter.path, kind)))
                for kind, state in parameter.states.items()
            }
            optimized.append(replace(parameter, states=states))
        for stored in listing.tensors:
            longkey = stored.longkey or stored.key
            if longkey in owner:
                raise duplicate_tensor(path, longkey, owner[longkey], file)
            owner[longkey] = file
            identity = stored.identity and (file, stored.identity)
            tensors.append(replace(stored, read=partial(_read, file, longkey), identity=identity))
    return with_config(Listing(str(path), tensors, optimized=optimized, in_order=len(files) == 1), path)


def _read(path: Path, key: str, rows: slice | None) -> torch.Tensor:
    """Return a tensor of a file, or some of its rows."""
    value = extract_state_dict(_load(path))[0][key]
    assert isinstance(value, torch.Tensor)
    return _rows(value, rows)


def _read_state(path: Path, keys: tuple[Hashable, ...], rows: slice | None) -> torch.Tensor:
    """Return a tensor of an optimizer's state, or some of its rows."""
    value: Any = _load(path)
    for key in keys:
        value = value[key]
    return _rows(value, rows)


def _rows(value: torch.Tensor, rows: slice | None) -> torch.Tensor:
    tensor = as_tensor(value)
    return tensor if rows is None else tensor[rows]


def _load(path: Path) -> Mapping[str, object]:
    """Return the checkpoint in a file: mapped into memory if the file is a zip archive, otherwise loaded whole."""
    if not is_archive(path):
        _check_old_format(path)
        status = path.stat()
        return _unpickled(path, status.st_mtime_ns, status.st_size)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive_entries(path, KIND).values()):
        raise InputError(
            f"{path}: its zip entries are compressed, which torch.save never does: load it and save it again"
        )
    return _opened(path, mmap=True)


def _check_old_format(path: Path) -> None:
    """Raise InputError, before unpickling anything, unless a file begins like torch's old format."""
    with path.open("rb") as file:
        if TORCH_MAGIC in file.read(32):
            return
    wanted = _imports(path)
    if wanted:
        raise _asks_for(path, wanted)
    raise unreadable_file(path, KIND, InputError("it does not begin like either format of torch.save"))


@lru_cache(maxsize=1)  # reading any tensor of the old format means reading the whole file
def _unpickled(path: Path, modified: int, size: int) -> Mapping[str, object]:
    """Return the checkpoint in a file of the old format, from a cache if the file has not changed."""
    return _opened(path, mmap=False)


def _opened(path: Path, *, mmap: bool) -> Mapping[str, object]:
    """Load a checkpoint without executing any code from it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own deprecated storage classes
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as err:
        wanted = _refused(path)
        if not wanted:
            raise unreadable_file(path, KIND, InputError("its pickle is damaged")) from err
        raise _asks_for(path, wanted) from err
    except Exception as err:  # a damaged pickle can raise anything
        raise unreadable_file(path, KIND, err) from err
    if isinstance(checkpoint, torch.Tensor):
        return {"tensor": checkpoint}
    if not isinstance(checkpoint, Mapping):
        raise InputError(
            f"{path}: expected a state dict or a dictionary that holds one, got a {type(checkpoint).__name__}"
        )
    return checkpoint


def _asks_for(path: Path, wanted: list[str]) -> InputError:
    """Return the InputError for a file that imports these names."""
    return InputError(
        f"{path}: refused, since it imports more than tensors need: {', '.join(wanted[:8])}{', ...' if len(wanted) > 8 else ''}. "
        "Unpickling these could run any program. If you trust the file, load it yourself and pass the state dict or module"
    )


def _refused(path: Path) -> list[str]:
    """Return the names that a file imports and tensors do not need, without executing any of it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it is in the old format, or damaged
        return _imports(path)


def _imports(path: Path) -> list[str]:
    """Return the names that the pickles of the old format import and tensors do not need."""
    wanted: set[str] = set()
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for _ in range(4):  # four pickles: a magic number, the protocol, the system, the object
                for opcode, argument, _ in itertools.islice(pickletools.genops(file), MAX_OPCODES):
                    if opcode.name in ("GLOBAL", "INST"):
                        wanted.add(str(argument).replace(" ", "."))
                    elif opcode.name == "STACK_GLOBAL":
                        wanted.add(".".join(texts[-2:]))
                    elif isinstance(argument, str):
                        texts.append(argument)
    except Exception:  # the file ends or is damaged: report what was found so far
        pass
    return sorted(name for name in wanted if not FOR_TENSORS.fullmatch(name))
