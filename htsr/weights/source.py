"""Tell what a source is and open it with the right reader."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from htsr.errors import InputError
from htsr.weights.convolutions import Conv, check_conv
from htsr.weights.inventory import Inventory, Listing
from htsr.weights.layout import Splitting, lay_out
from htsr.weights.modules import read_module
from htsr.weights.readers.archives import entries, is_archive
from htsr.weights.readers.gguf import read_gguf
from htsr.weights.readers.keras import WEIGHTS, read_keras
from htsr.weights.readers.npz import read_npz
from htsr.weights.readers.onnx import read_onnx
from htsr.weights.readers.peft import CONFIG as ADAPTER
from htsr.weights.readers.peft import read_peft
from htsr.weights.readers.quantised import multiply_scales
from htsr.weights.readers.remote import fetch, is_url
from htsr.weights.readers.safetensors import read_safetensors
from htsr.weights.readers.shards import shards
from htsr.weights.readers.torch_files import MAGIC, SHARDS, read_torch
from htsr.weights.state_dicts import read_state_dict
from htsr.weights.weight_norm import multiply_norms

Source = nn.Module | Mapping[str, object] | str | os.PathLike[str]
Reader = Callable[[Path], Listing]

READERS: dict[str, Reader] = {
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".ckpt": read_torch,
    ".bin": read_torch,
    ".npz": read_npz,
    ".gguf": read_gguf,
    ".onnx": read_onnx,
    ".keras": read_keras,
    ".h5": read_keras,
    ".hdf5": read_keras,
}


def open_source(
    source: Source, *, conv: Conv = "pool", per_head: bool = False, base: Source | None = None
) -> Inventory:
    """List what a source holds: names and shapes, no values yet.

    Args:
        source: A module; a state dict, ``{name: array}`` or a checkpoint that holds one; or a path to a file or directory of
            one of the formats in ``READERS``, to a directory of ``torch.distributed.checkpoint`` or of a PEFT adapter; or a URL
            that fsspec can open.
        conv: How convolutions are decomposed: ``"pool"``, ``"slices"`` or ``"unfold"``; see ``kernel_parts``.
        per_head: Cut attention weights into their heads, where the number of heads is known.
        base: The model that an adapter was trained on, where the source is the directory of one.

    Returns:
        Its layers and, with a reason each, all other tensors.

    Raises:
        FileNotFoundError: If the path does not exist.
        InputError: If the path is no checkpoint, the source holds no tensor at all, or a base is given for what is no adapter.
        TypeError: If the source is of none of these kinds.
    """
    check_conv(conv)
    listing = multiply_norms(multiply_scales(_list(source, base)))
    if not listing.tensors:
        raise InputError(f"{listing.source} is empty: expected at least one weight, found no tensor at all")
    return lay_out(listing, Splitting(conv, per_head))


def _list(source: Source, base: Source | None = None) -> Listing:
    if is_url(source):
        listing = _list(fetch(str(source)), base)
        return replace(listing, source=str(source))
    if isinstance(source, str | os.PathLike) and (Path(source) / ADAPTER).is_file():
        return read_peft(Path(source), None if base is None else _list(base))
    if base is not None:
        raise InputError(
            f"expected the directory of an adapter, with its {ADAPTER}, since a base is given, got {source!r:.100}"
        )
    if isinstance(source, nn.Module):
        return read_module(source)
    if isinstance(source, Mapping):
        return read_state_dict(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _reader(path)(path)
    raise TypeError(
        "expected a torch.nn.Module, a state dict, {name: array} or a path to a checkpoint file or directory, "
        f"got {type(source).__name__}"
    )


def _reader(path: Path) -> Reader:
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: a symbolic link that leads to no file, or in a circle")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    if path.is_dir():
        return _reader_of_directory(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a file or a directory, got a device, a pipe or the like")
    return _reader_by_content(path) or _reader_by_suffix(path)


def _reader_by_content(path: Path) -> Reader | None:
    """The formats that begin with a mark of their own, whatever the file is called."""
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"GGUF"):
        return read_gguf
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_keras
    if MAGIC in head:
        return read_torch
    if is_archive(path):
        names = entries(path, "zip archive")
        if WEIGHTS in names:
            return read_keras
        if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
            return read_torch
        if any(name.endswith(".npy") for name in names):
            return read_npz
    return None


def _reader_by_suffix(path: Path) -> Reader:
    if path.name.endswith(".index.json"):
        return lambda index: _reader_of_directory(index.parent)(index.parent)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected a checkpoint file ({', '.join(READERS)}), got the suffix {path.suffix!r}")
    return reader


def _reader_of_directory(path: Path) -> Reader:
    if shards(path, "*.safetensors"):
        return read_safetensors
    if (path / ".metadata").is_file():
        from htsr.weights.readers.torch_distributed import read_torch_distributed  # loads for two seconds

        return read_torch_distributed
    if shards(path, *SHARDS):
        return read_torch
    alone = shards(path, *(f"*{suffix}" for suffix in READERS))
    if len(alone) == 1:
        return lambda directory: _reader(alone[0])(alone[0])
    names = sorted(entry.name for entry in path.iterdir())
    found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    raise InputError(
        f"{path}: expected *.safetensors, pytorch_model*.bin, a torch.distributed checkpoint, or one checkpoint file "
        f"({', '.join(READERS)}), found {found}"
    )
