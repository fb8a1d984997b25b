"""Tell what a source is and open it with the right reader."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from htsr.errors import InputError
from htsr.weights.convolutions import Conv, check_conv
from htsr.weights.inventory import Inventory, Listing
from htsr.weights.layout import Splitting, lay_out
from htsr.weights.modules import read_module
from htsr.weights.safetensors import read_safetensors, safetensors_files
from htsr.weights.state_dicts import read_state_dict

Source = nn.Module | Mapping[str, object] | str | os.PathLike[str]


def open_source(source: Source, *, conv: Conv = "pool", per_head: bool = False) -> Inventory:
    """List what a source holds: names and shapes, no values yet.

    Args:
        source: A module, a state dict or ``{name: array}``, or a path to a ``.safetensors`` file or to a directory of
            them.
        conv: How convolutions are decomposed: ``"pool"``, ``"slices"`` or ``"unfold"``; see ``kernel_parts``.
        per_head: Cut attention weights into their heads, where the number of heads is known.

    Returns:
        Its layers and, with a reason each, all other tensors.

    Raises:
        FileNotFoundError: If the path does not exist.
        InputError: If the path is no safetensors checkpoint, or the source holds no tensor at all.
        TypeError: If the source is of none of these kinds.
    """
    check_conv(conv)
    listing = _list(source)
    if not listing.tensors:
        raise InputError(f"{listing.source} is empty: expected at least one weight, found no tensor at all")
    return lay_out(listing, Splitting(conv, per_head))


def _list(source: Source) -> Listing:
    if isinstance(source, nn.Module):
        return read_module(source)
    if isinstance(source, Mapping):
        return read_state_dict(source)
    if isinstance(source, str | os.PathLike):
        return read_safetensors(_checkpoint(Path(source)))
    raise TypeError(
        "expected a torch.nn.Module, a state dict, {name: array} or a path to a .safetensors file or directory, "
        f"got {type(source).__name__}"
    )


def _checkpoint(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    if path.is_dir() and not safetensors_files(path):
        names = sorted(entry.name for entry in path.iterdir())
        found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
        raise InputError(f"{path}: expected a directory with *.safetensors files, found {found}. {_OTHER_FORMATS}")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path}: expected a file or a directory, got a device, a pipe or the like")
    if path.is_file() and path.suffix.lower() != ".safetensors":
        raise InputError(f"{path}: expected a .safetensors file, got the suffix {path.suffix!r}. {_OTHER_FORMATS}")
    return path


_OTHER_FORMATS = (
    "Checkpoints of other formats: load them yourself, e.g. torch.load(path, weights_only=True), "
    "and pass the state dict to htsr.analyze"
)
