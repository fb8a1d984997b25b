"""Find the files of a directory that make up one checkpoint."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from htsr.errors import InputError


def shard_files(directory: Path, *patterns: str) -> list[Path]:
    """Return the files of a directory that match any of these globs, sorted by name."""
    found = sorted({path for pattern in patterns for path in directory.glob(pattern)})
    for path in found:
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path}: a symbolic link that leads to no file; fetch the checkpoint again")
    return [path for path in found if path.is_file()]


def check_shards_complete(directory: Path, there: Iterable[str], suffix: str) -> None:
    """Raise InputError if the index or the numbers in the names of these shards say that a shard is missing."""
    there = set(there)
    expected: set[str] = set()
    for index in directory.glob(f"*.{suffix}.index.json"):
        try:
            expected |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as err:
            raise InputError(
                f"{index}: expected a JSON object with a weight_map, got {type(err).__name__}: {err}"
            ) from err
    for name in there:
        numbered = re.fullmatch(rf"(.*-)([0-9]{{1,6}})-of-([0-9]{{1,6}})\.{suffix}", name)
        if numbered:
            stem, number, count = numbered.groups()
            expected |= {f"{stem}{i:0{len(number)}d}-of-{count}.{suffix}" for i in range(1, int(count) + 1)}
    missing = sorted(str(name) for name in expected - there)
    if missing:
        raise InputError(
            f"{directory}: {len(missing)} of {len(expected)} shards are missing: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}; fetch them, or pass one shard as a file"
        )


def duplicate_tensor(path: Path, key: str, first: Path, second: Path) -> InputError:
    """Return the InputError for a directory in which two files hold a tensor of the same name."""
    return InputError(
        f"{path}: the tensor {key!r} is in both {first.name} and {second.name}: expected the shards of one checkpoint; "
        "pass one file"
    )


def config_beside(path: Path) -> dict[str, object]:
    """Return the ``config.json`` in a directory or beside a file; empty if it is missing or damaged."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
