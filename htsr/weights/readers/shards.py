"""Find the files of a directory that make up one checkpoint, and name those that do not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from htsr.errors import InputError
from htsr.weights.readers.json_files import read_json

# The largest published checkpoints have a few hundred shards.
MAX_SHARDS = 10_000
# Files of a directory that are looked at; a folder of a training run holds some hundred.
MAX_FILES = 100_000
NUMBERED = re.compile(r"(?P<stem>.*-)(?P<number>[0-9]{1,6})-of-(?P<count>[0-9]{1,6})\.(?P<suffix>\w+)")
# Names under which libraries save the weights of a model, in the order in which they are looked for. Beside them stand the
# same weights in another precision (model.fp16.safetensors), in another layout (consolidated.safetensors), or the state of a
# training (training_args.bin, optimizer.bin).
WEIGHT_NAMES = {
    "safetensors": (
        "model",
        "diffusion_pytorch_model",
        "adapter_model",
        "pytorch_model",
        "open_clip_model",
        "consolidated",
    ),
    "bin": ("pytorch_model", "diffusion_pytorch_model", "model", "adapter_model", "open_clip_pytorch_model"),
}
BESIDE = "not part of the checkpoint that was read: pass this file to read it"


@dataclass(frozen=True)
class Chosen:
    """The files of a checkpoint, the names of other files of weights in the same directory, and the tensors an index names."""

    files: list[Path]
    beside: list[str] = field(default_factory=list)
    tensors: frozenset[str] = frozenset()


def files_with_suffix(directory: Path, *suffixes: str) -> list[Path]:
    """Return the regular, visible files of a directory that end in one of these suffixes, sorted by name.

    Hidden files are left out: macOS leaves ``._model.safetensors`` beside every file that it copies to some file systems.
    """
    found = []
    for number, path in enumerate(directory.iterdir()):
        if number >= MAX_FILES:
            raise InputError(f"{directory}: more than {MAX_FILES:,} entries; pass the file of the checkpoint")
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path}: a symbolic link that leads to no file; fetch the checkpoint again")
        if path.is_file():
            found.append(path)
    return sorted(found)


def choose_shards(directory: Path, suffix: str) -> Chosen | None:
    """Return the files of the directory's checkpoint of this suffix, ``safetensors`` or ``bin``; None if there is none.

    An index names them; else a well-known name, alone or with numbers; else files whose names are numbered. Files of no such
    name are taken together, as shards without an index.
    """
    files = files_with_suffix(directory, f".{suffix}")
    by_name = {path.name: path for path in files}
    indices = [
        path for path in directory.glob(f"*.{suffix}.index.json") if not path.name.startswith(".")
    ]  # as files_with_suffix
    indices.sort(key=lambda path: (path.name.count("."), path.name))
    if indices:
        weight_map = _weight_map(indices[0])
        names = set(weight_map.values())
        _check_complete(directory, names, by_name)
        files = [by_name[name] for name in sorted(names)]
        return Chosen(files, sorted(by_name.keys() - names), frozenset(weight_map))
    for stem in WEIGHT_NAMES[suffix]:
        if f"{stem}.{suffix}" in by_name:
            return Chosen([by_name[f"{stem}.{suffix}"]], sorted(by_name.keys() - {f"{stem}.{suffix}"}))
        if numbered := {
            name for name in by_name if (found := NUMBERED.fullmatch(name)) and found["stem"] == f"{stem}-"
        }:
            return _complete_set(directory, next(iter(sorted(numbered))), by_name)
    if suffix == "bin":  # of other names, training_args.bin for instance, none is a file of weights
        return None
    if not files:
        return None
    stems = {found["stem"] for name in by_name if (found := NUMBERED.fullmatch(name))}
    if len(stems) == 1 and all(NUMBERED.fullmatch(name) for name in by_name):
        return _complete_set(directory, files[0].name, by_name)
    return Chosen(files)


def sibling_parts(path: Path) -> list[Path]:
    """Return all parts of a split file, found from any one of them: ``m-00001-of-00003.gguf``."""
    if not NUMBERED.fullmatch(path.name):
        return [path]
    siblings = {file.name: file for file in files_with_suffix(path.parent, path.suffix.lower())}
    return _complete_set(path.parent, path.name, siblings).files


def duplicate_tensor(path: Path, key: str, first: Path, second: Path) -> InputError:
    """Return the InputError for a directory in which two files hold a tensor of the same name."""
    return InputError(
        f"{path}: the tensor {key!r:.200} is in both {first.name} and {second.name}: expected the shards of one checkpoint; "
        "pass one file"
    )


def named_by_index(index: Path) -> set[str]:
    """Return the names of the files that an index maps tensors to."""
    return set(_weight_map(index).values())


def _weight_map(index: Path) -> dict[str, str]:
    """Return the names of the tensors in an index, each with the name of its file."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{index}: expected a weight_map from the names of tensors to the names of files")
    return weight_map


def _complete_set(directory: Path, name: str, by_name: dict[str, Path]) -> Chosen:
    """Return all shards of the set that a numbered name belongs to; raise InputError if one is missing."""
    found = NUMBERED.fullmatch(name)
    assert found is not None
    stem, number, count, suffix = found.groups()
    if not 0 < int(count) <= MAX_SHARDS:
        what = "has none" if int(count) == 0 else "has that many"
        raise InputError(f"{directory}: {name} is one of {int(count):,} shards by its name; no checkpoint {what}")
    names = {f"{stem}{i:0{len(number)}d}-of-{count}.{suffix}" for i in range(1, int(count) + 1)}
    _check_complete(directory, names, by_name)
    return Chosen([by_name[shard] for shard in sorted(names)], sorted(by_name.keys() - names))


def _check_complete(directory: Path, names: set[str], there: Sequence[str] | dict[str, Path]) -> None:
    missing = sorted(name for name in names if name not in there)
    if missing:
        shown = ", ".join(f"{name:.100}" for name in missing[:3])
        raise InputError(
            f"{directory}: {len(missing)} of {len(names)} shards are missing: {shown}{', ...' if len(missing) > 3 else ''}; "
            "fetch them, or pass one shard as a file"
        )
