"""Recognise the kind of a source and open it with the right reader."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import numpy as np
from torch import Tensor, nn

from htsr.choices import Convention
from htsr.errors import InputError
from htsr.files import open_regular
from htsr.weights.convolutions import Conv, check_conv
from htsr.weights.inventory import Inventory, Listing
from htsr.weights.modules import read_module
from htsr.weights.names import distinct_ends
from htsr.weights.optimizer_state import list_state
from htsr.weights.parametrisations import effective_weights
from htsr.weights.readers.archives import KERAS_WEIGHTS, TORCH_MAGIC, archive_entries, check_no_lfs_pointer, is_archive
from htsr.weights.readers.directories import list_directory, parts_of_one, refuse_zero_file, with_optimizer
from htsr.weights.readers.formats import (
    BY_SUFFIX,
    GGUF,
    KERAS,
    NPZ,
    TORCH,
    Format,
    check_not_foreign,
)
from htsr.weights.readers.hub import SCHEME, address_on_hub, fetch_from_hub, is_hub_address
from htsr.weights.readers.keras.files import is_keras_model, read_keras_model
from htsr.weights.readers.peft.adapters import adapter_folder, list_adapter, read_peft, with_factors_noted
from htsr.weights.readers.quantised import multiply_scales
from htsr.weights.readers.remote import fetch_checkpoint, is_url, keep_copies
from htsr.weights.readers.shards import sibling_parts
from htsr.weights.splitting import Splitting, split_into_layers
from htsr.weights.state_dicts import NO_TENSOR, read_state_dict

Array = Tensor | np.ndarray
AnyPath = str | os.PathLike[str]
Source = nn.Module | Mapping[str, object] | Array | AnyPath | Sequence[Array] | Sequence[AnyPath]


def open_source(
    source: Source,
    *,
    conv: Conv = "pool",
    per_head: bool = False,
    base: Source | None = None,
    state: str | None = None,
    convention: Convention = "htsr",
) -> Inventory:
    """List the weights of a source by name and shape, without loading any values.

    Args:
        source: A module; a state dict, ``{name: array}`` or a checkpoint dictionary that holds one of these; an array or a list
            of them; the path of a file or directory in one of the formats of ``readers/formats.py``, also of
            ``torch.distributed.checkpoint`` or of a PEFT adapter; a model on the Hugging Face Hub, ``hf://org/name`` or
            ``hf://org/name@revision``; another URL that fsspec can open; or a list of paths and URLs.
        conv: How convolutions are decomposed. ``"pool"`` decomposes each slice of a kernel, one ``(out, in)`` matrix for each
            position, and pools the eigenvalues. ``"slices"`` makes each slice a layer of its own. ``"unfold"`` makes the kernel
            one matrix, ``(out, in * positions)``. A kernel whose slices would be vectors, as in depthwise convolutions, is
            always one matrix, ``(channels, positions)``.
        per_head: Whether to cut attention weights into their heads, if the number of heads is known.
        base: The model that an adapter was trained on, if the source is the directory of an adapter.
        state: The name under which the optimizer keeps what is listed in place of the weights, such as ``"exp_avg"`` or
            ``"momentum_buffer"``, if the source holds the state of an optimizer.
        convention: ``"weightwatcher"`` pools the slices of every 2-D convolution, also of one with groups or with a single
            channel on one side, as WeightWatcher does.

    Returns:
        The layers of the source and, each with a reason, all of its other tensors.

    Raises:
        FileNotFoundError: If the path does not exist.
        InputError: If the path is not a checkpoint, the source holds no tensor or no such state, or a base is given and the
            source is not an adapter.
        TypeError: If the source has a type other than these.
        ValueError: If ``conv`` is unknown.
    """
    check_conv(conv)
    if not isinstance(state, str | None):
        raise TypeError(f"expected state to be the name of an optimizer's state, got {type(state).__name__}")
    _check_type(source)
    if base is not None:
        _check_type(base)
    if isinstance(source, list | tuple) and source and all(map(is_path, source)):
        paths = [os.fspath(path) for path in source]
        opened = [
            open_source(path, conv=conv, per_head=per_head, base=base, state=state, convention=convention)
            for path in paths
        ]
        return _side_by_side(opened, distinct_ends(paths))
    try:
        listing = _list(source, base) if state is None else _list_state(source, base, state)
        if not listing.tensors and listing.optimized:
            raise InputError(f"{listing.source}: holds the state of an optimizer and no weights; state= analyses it")
        if not listing.tensors:
            raise InputError(f"{listing.source} is empty: expected at least one weight, found no tensor")
        if all(stored.reason is not None and NO_TENSOR in stored.reason for stored in listing.tensors):
            found = ", ".join(f"{stored.key!r} of type {stored.dtype}" for stored in listing.tensors[:8])
            more = ", ..." if len(listing.tensors) > 8 else ""
            raise InputError(
                f"{listing.source}: expected names and tensors or arrays, found no tensor, only {found}{more}"
            )
        if state is None:
            listing = effective_weights(multiply_scales(listing))
        return split_into_layers(listing, Splitting(conv, per_head, convention == "weightwatcher"))
    except (InputError, OSError, MemoryError, ImportError):
        raise
    except Exception as err:
        if not is_path(source):
            raise
        # names and settings of a stranger's file may be anything
        raise InputError(
            f"{os.fspath(source)}: expected names, shapes and settings that make sense together, and could not cut the tensors "
            f"into layers ({type(err).__name__}: {err}); look at the file, or report it if it is sound"
        ) from err


def list_tensors(source: Source) -> Listing:
    """List the tensors of a source before they are cut into layers, with quantised and parametrised weights computed."""
    return effective_weights(multiply_scales(_list(source)))


def is_path(source: object) -> TypeGuard[AnyPath]:
    """Return whether a source is a path or a URL."""
    return isinstance(source, str | os.PathLike)


def _check_type(source: object) -> None:
    """Raise TypeError for what is no source."""
    known = isinstance(source, nn.Module | Mapping | Array | list | tuple | str | os.PathLike)
    if not known and not is_keras_model(source):
        raise TypeError(
            "expected a torch.nn.Module, a state dict, {name: array}, an array, a path to a checkpoint file or directory, or a "
            f"list of arrays or of paths, got {type(source).__name__}"
        )


def is_adapter(source: object) -> bool:
    """Return whether a source is the directory of an adapter, here or on the hub."""
    path = fetch_from_hub(source)[0] if is_hub_address(source) else source
    return is_path(path) and adapter_folder(path) is not None


def _side_by_side(inventories: Sequence[Inventory], labels: Sequence[str]) -> Inventory:
    """Return one inventory of several, in which each name begins with the label of its source."""
    layers, skipped = [], []
    metadata: dict[str, str] = {}
    for label, inventory in zip(labels, inventories, strict=True):
        for layer in inventory.layers:
            tied_to = None if layer.tied_to is None else f"{label}:{layer.tied_to}"
            name, longname = f"{label}:{layer.name}", f"{label}:{layer.longname}"
            layers.append(replace(layer, name=name, longname=longname, tied_to=tied_to))
        skipped += [replace(item, name=f"{label}:{item.name}") for item in inventory.skipped]
        metadata |= {f"{label}:{key}": value for key, value in inventory.metadata.items()}
    source = ", ".join(inventory.source for inventory in inventories)
    return Inventory(source, layers, skipped, inventories[0].state, metadata)


def _list_state(source: Source, base: Source | None, state: str) -> Listing:
    """List the optimizer state of one kind that a source holds, as the optimizer keeps it: of the tensors as stored."""
    if base is not None:
        raise InputError("expected either base= or state=: an adapter's optimizer keeps no state of its base")
    if not is_path(source) or is_url(source):
        return list_state(_list(source), state)
    path = Path(source)
    folder = adapter_folder(path)
    listing = _list(source) if folder is None else list_adapter(folder)
    return list_state(with_optimizer(listing, path, _list_checkpoint), state)


def _list(source: Source, base: Source | None = None) -> Listing:
    """List the tensors of a source, merged with its base if the source is an adapter that has one."""
    if isinstance(source, str) and not source:  # the current folder to pathlib, an unset variable to a shell
        raise InputError("expected a path or a URL, got an empty text")
    if is_hub_address(source):
        path, commit = fetch_from_hub(source)
        listing = _list(path, base)
        return replace(listing, source=source, metadata={"commit": commit, **listing.metadata})
    if is_url(source):
        copies, path = fetch_checkpoint(str(source))
        return keep_copies(_list(path, base), copies, str(source))
    folder = adapter_folder(source) if is_path(source) else None
    if folder is not None:
        return read_peft(folder, None if base is None else _list(base))
    if base is not None:
        raise InputError(
            f"expected the directory of an adapter (with adapter_config.json) because a base is given, got {source!r:.100}"
        )
    if is_keras_model(source):
        return read_keras_model(source)
    if isinstance(source, nn.Module):
        return read_module(source)
    if isinstance(source, Mapping):
        return read_state_dict(source)
    if isinstance(source, Array):
        if source.ndim < 2:
            raise InputError(
                f"expected a weight of two dimensions or more, got an array of shape {tuple(source.shape)}"
            )
        return read_state_dict({"weight": source}, f"array of shape {' x '.join(map(str, source.shape))}")
    if isinstance(source, list | tuple):
        return _list_of_arrays(source)
    assert is_path(source)
    return _list_checkpoint(Path(source))


def _list_of_arrays(arrays: Sequence[object]) -> Listing:
    """List arrays under their positions."""
    if not arrays:
        raise InputError("expected a list of arrays or of paths, got an empty one")
    for position, array in enumerate(arrays):
        if not isinstance(array, Array):
            kinds = " and ".join(sorted({type(item).__name__ for item in arrays}))
            raise TypeError(
                f"expected a list of arrays or a list of paths, got {type(array).__name__} at {position} among {kinds}"
            )
    return read_state_dict(
        {str(position): array for position, array in enumerate(arrays)}, f"list of {len(arrays)} arrays"
    )


def _list_checkpoint(path: Path) -> Listing:
    """List the tensors of a file or directory; the format shows in the content before the suffix."""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: a symbolic link that leads to no file or to itself")
    if not path.exists():
        address = address_on_hub(path.as_posix())
        hint = f"; to fetch it from the hub, pass {address}" if address else ""
        if not address and not path.suffix and len(path.parts) == 1:
            hint = f"; a model on the hub has an address of the form {SCHEME}organisation/name"
        raise FileNotFoundError(f"{path}: no such file or directory{hint}")
    if path.is_dir():
        return list_directory(path, _list_checkpoint)
    if not path.is_file():
        raise InputError(f"{path}: expected a file or a directory, got a device, a pipe or another special file")
    if path.name.endswith(".index.json"):
        return list_directory(path.parent, _list_checkpoint)
    check_no_lfs_pointer(path)
    format_ = format_of(path)
    if format_ is None:
        check_not_foreign(path)
        raise InputError(f"{path}: expected a checkpoint file ({', '.join(BY_SUFFIX)}), got the suffix {path.suffix!r}")
    refuse_zero_file(path)
    listing = format_.list_tensors(path, sibling_parts(path) if format_ is GGUF else [path])
    if (parts := parts_of_one(path)) > 1:
        note = f"a part of the weight, which is cut over {parts} files"
        listing = replace(listing, tensors=[replace(stored, note=note) for stored in listing.tensors])
    return with_factors_noted(listing)


def format_of(path: Path) -> Format | None:
    """Return the format of a file: its content decides before its suffix."""
    return format_by_content(path) or BY_SUFFIX.get(path.suffix.lower())


def format_by_content(path: Path) -> Format | None:
    """Return the format of a file that begins with a signature, whatever the file is called."""
    with open_regular(path) as file:
        head = file.read(32)
    if head.startswith(b"GGUF"):
        return GGUF
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return KERAS
    if TORCH_MAGIC in head:
        return TORCH
    if is_archive(path):
        names = archive_entries(path, "zip archive")
        if KERAS_WEIGHTS in names:
            return KERAS
        if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
            return TORCH
        if any(name.endswith(".npy") for name in names):
            return NPZ
    return None
