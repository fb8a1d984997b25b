"""Clean and sort the names of tensors."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from htsr.errors import InputError

# Components that torch.compile, activation checkpointing, FSDP and Fabric insert into module paths.
WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}
# Prefix that DataParallel and DistributedDataParallel put before every name.
DATA_PARALLEL = "module."
# Where torch.optim.swa_utils.AveragedModel counts its updates, beside a model under ``module.``
UPDATES = "n_averaged"


def without_wrappers(key: str) -> str:
    """Return a name without the components that wrappers inserted.

    Example:
        >>> without_wrappers("_orig_mod.layers.0._checkpoint_wrapped_module.fc.weight")
        'layers.0.fc.weight'
    """
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def clean_names(keys: Collection[str]) -> dict[str, str]:
    """Map each name of a source to its clean form, without ``module.`` if all of them begin with it."""
    cleaned = {key: without_wrappers(key) for key in keys}
    inside = [name for key, name in cleaned.items() if key != UPDATES]
    if inside and all(name.startswith(DATA_PARALLEL) and name != DATA_PARALLEL for name in inside):
        return {key: name.removeprefix(DATA_PARALLEL) for key, name in cleaned.items()}
    return cleaned


def without_only_parent(names: Mapping[str, str]) -> dict[str, str]:
    """Return the names without their first component if all of them share it and name a layer inside it.

    Example:
        >>> without_only_parent({"a": "attention.query.weight", "b": "attention.key.weight"})
        {'a': 'query.weight', 'b': 'key.weight'}
    """
    first = {name.split(".")[0] for name in names.values()}
    if len(first) == 1 and all(name.count(".") > 1 for name in names.values()):
        return {key: name.split(".", 1)[1] for key, name in names.items()}
    return dict(names)


def natural_order(key: str) -> list[tuple[int, str]]:
    """Return a sort key that compares the numbers in names as numbers: layer 10 comes after layer 2."""
    parts = re.split(r"([0-9]+)", key)
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]  # a name can hold more digits than int() takes
    return [(len(part) if number % 2 else -1, part) for number, part in enumerate(parts)]


def distinct_ends(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the shortest end of each path, with equally many components for all, that tells it from the others."""
    parts = [Path(path).absolute().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    raise InputError(f"expected different paths, got one of them twice: {', '.join(map(str, paths))}")
