"""Weights of files written by ``torch.save``: ``.pt``, ``.pth``, ``.ckpt``, ``pytorch_model*.bin``.

These are pickles, which can hold any program. They are opened with ``weights_only=True`` alone: nothing in them is executed,
and a file that asks for more than tensors is refused with the list of what it asks for.
"""

import itertools
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch

from htsr.errors import InputError
from htsr.weights.arrays import as_tensor
from htsr.weights.inventory import Listing, StoredTensor
from htsr.weights.readers.archives import archive_entries, is_archive, unreadable_file
from htsr.weights.readers.shards import check_shards_complete, config_beside, shard_files
from htsr.weights.state_dicts import extract_state_dict, read_state_dict

KIND = "torch checkpoint"
# Names under which trainers of Hugging Face save weights; training_args.bin, optimizer.bin and the like are none.
BIN_SHARDS = ("pytorch_model*.bin", "model*.bin", "adapter_model*.bin")
# torch.serialization.MAGIC_NUMBER as a pickle holds it.
TORCH_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
# What a state dict imports.
FOR_TENSORS = re.compile(
    r"torch\.(\w+Storage|_utils\.\w+|Size|device|nn\.parameter\.Parameter)|collections\.OrderedDict|(__builtin__|builtins)\.set"
)
# Of a file that is refused anyway, so much is looked through for what it imports.
MAX_OPCODES = 100_000


def read_torch(path: Path) -> Listing:
    """List the tensors of a file or of the ``pytorch_model*.bin`` shards of a directory.

    Args:
        path: A file written by ``torch.save``, of a state dict or of a checkpoint that holds one, or a directory.

    Returns:
        The tensors in the order of the file. Files in the zip format, torch's since 1.6, are mapped into memory, so that one
        tensor at a time is read; older ones are in memory as a whole.

    Raises:
        InputError: If a file cannot be read or asks for more than tensors, a shard is missing, or a name stands in two files.
    """
    files = shard_files(path, *BIN_SHARDS) if path.is_dir() else [path]
    if path.is_dir():
        check_shards_complete(path, {file.name for file in files}, "bin")
    tensors: list[StoredTensor] = []
    owner: dict[str, Path] = {}
    for file in files:
        checkpoint = _load(file)
        for stored in read_state_dict(checkpoint).tensors:
            longkey = stored.longkey or stored.key
            if longkey in owner:
                raise InputError(
                    f"{path}: the tensor {longkey!r} stands in both {owner[longkey].name} and {file.name}: expected the "
                    "shards of one checkpoint; pass one file"
                )
            owner[longkey] = file
            identity = stored.identity and (file, stored.identity)
            tensors.append(replace(stored, read=partial(_read, file, longkey), identity=identity))
    return Listing(str(path), tensors, config_beside(path))


def _read(path: Path, key: str, rows: slice | None) -> torch.Tensor:
    value = extract_state_dict(_load(path))[0][key]
    assert isinstance(value, torch.Tensor)
    tensor = as_tensor(value)
    return tensor if rows is None else tensor[rows]


def _load(path: Path) -> Mapping[str, object]:
    if not is_archive(path):
        _check_old_format(path)
        status = path.stat()
        return _unpickled(path, status.st_mtime_ns, status.st_size)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive_entries(path, KIND).values()):
        raise InputError(f"{path}: compressed inside, which torch.save never does: unpack it and save it again")
    return _opened(path, mmap=True)


def _check_old_format(path: Path) -> None:
    """Refuse what does not begin as the old format does, before any of it is unpickled."""
    with path.open("rb") as file:
        if TORCH_MAGIC in file.read(32):
            return
    wanted = _imports(path)
    if wanted:
        raise _asks_for(path, wanted)
    raise unreadable_file(path, KIND, InputError("it begins neither as torch.save's zip format nor as the older one"))


@lru_cache(maxsize=1)  # the old format has to be read as a whole for each of its tensors
def _unpickled(path: Path, modified: int, size: int) -> Mapping[str, object]:
    return _opened(path, mmap=False)


def _opened(path: Path, *, mmap: bool) -> Mapping[str, object]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on storage classes that torch itself deprecated
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as err:
        wanted = _refused(path)
        if not wanted:
            raise unreadable_file(path, KIND, InputError("its pickle is damaged")) from err
        raise _asks_for(path, wanted) from err
    except Exception as err:  # a damaged pickle can make the unpickler stumble in any way
        raise unreadable_file(path, KIND, err) from err
    if isinstance(checkpoint, torch.Tensor):
        return {"tensor": checkpoint}
    if not isinstance(checkpoint, Mapping):
        raise InputError(
            f"{path}: expected a state dict or a dictionary that holds one, got a {type(checkpoint).__name__}"
        )
    return checkpoint


def _asks_for(path: Path, wanted: list[str]) -> InputError:
    return InputError(
        f"{path}: refused, since it asks for more than tensors: {', '.join(wanted[:8])}{', ...' if len(wanted) > 8 else ''}. "
        "Unpickling these could run any program. If you trust the file, load it yourself and pass the state dict or module"
    )


def _refused(path: Path) -> list[str]:
    """The names that a file wants to import and that are not needed for tensors; without executing any of it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the old format, or damage
        return _imports(path)


def _imports(path: Path) -> list[str]:
    """What the pickles of the old format import, what tensors need aside."""
    wanted: set[str] = set()
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for _ in range(4):  # a magic number, the protocol, the system, the object
                for opcode, argument, _ in itertools.islice(pickletools.genops(file), MAX_OPCODES):
                    if opcode.name in ("GLOBAL", "INST"):
                        wanted.add(str(argument).replace(" ", "."))
                    elif opcode.name == "STACK_GLOBAL":
                        wanted.add(".".join(texts[-2:]))
                    elif isinstance(argument, str):
                        texts.append(argument)
    except Exception:  # it ends, or is damaged: what was found so far is said
        pass
    return sorted(name for name in wanted if not FOR_TENSORS.fullmatch(name))
