"""Find the files of a directory that make up one checkpoint."""

import re
from collections.abc import Iterable
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.readers.json_files import read_json

# The largest published checkpoints have a few hundred shards.
MAX_SHARDS = 10_000
# Names under which Hugging Face's trainers save weights, unlike training_args.bin, optimizer.bin and so on.
BIN_SHARDS = ("pytorch_model*.bin", "model*.bin", "adapter_model*.bin")


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
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise InputError(f"{index}: expected a weight_map from the names of tensors to the names of files")
        expected |= set(weight_map.values())
    for name in there:
        numbered = re.fullmatch(rf"(.*-)([0-9]{{1,6}})-of-([0-9]{{1,6}})\.{suffix}", name)
        if numbered:
            stem, number, count = numbered.groups()
            if int(count) > MAX_SHARDS:
                raise InputError(
                    f"{directory}: {name} is one of {int(count):,} shards by its name; no checkpoint has that many"
                )
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
