"""Names of tensors: what wrappers add to them, and their order."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from htsr.errors import InputError

# Components that torch.compile, activation checkpointing, FSDP and Fabric insert into module paths.
WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}


def clean(key: str) -> str:
    """A name without what wrappers inserted.

    Args:
        key: A module path or the name of a tensor.

    Returns:
        The path without the components that are wrappers.

    Example:
        >>> clean("_orig_mod.layers.0._checkpoint_wrapped_module.fc.weight")
        'layers.0.fc.weight'
    """
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def without_common_prefix(keys: Collection[str], prefix: str) -> dict[str, str]:
    """Clean names by the names as stored, without a prefix that all of them have.

    Args:
        keys: All names of a source.
        prefix: What data parallelism puts before every name: ``module.``.

    Returns:
        Clean name of each key.
    """
    cleaned = {key: clean(key) for key in keys}
    if keys and all(name.startswith(prefix) and len(name) > len(prefix) for name in cleaned.values()):
        return {key: name.removeprefix(prefix) for key, name in cleaned.items()}
    return cleaned


def natural_order(key: str) -> list[tuple[int, str]]:
    """Sorts names with their numbers compared as numbers: layer 10 comes after layer 2."""
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(re.split(r"([0-9]+)", key))]


def distinct_ends(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the shortest end of each path, with equally many components for all, that tells it from the others."""
    parts = [Path(path).absolute().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    raise InputError(f"expected different paths, got one of them twice: {', '.join(map(str, paths))}")
