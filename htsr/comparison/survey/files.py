"""Find the weight files of directories, files and installed packages; the shards of one checkpoint are one entry."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from htsr.comparison.survey.packages import package_files
from htsr.errors import InputError
from htsr.weights.inventory import Listing
from htsr.weights.names import natural_order
from htsr.weights.parametrisations import effective_weights
from htsr.weights.readers.archives import archive_entries
from htsr.weights.readers.formats import BY_SUFFIX, GGUF, TORCH, TORCH_DISTRIBUTED, Format, foreign_model
from htsr.weights.readers.quantised import multiply_scales
from htsr.weights.readers.remote import is_url
from htsr.weights.readers.shards import NUMBERED, named_by_index, sibling_parts
from htsr.weights.readers.torch.torchscript import is_torchscript
from htsr.weights.source import format_by_content, format_of, list_tensors

# Files that hold no weights, whatever they begin with; a survey of an installed package meets thousands of them.
NEVER = {".py", ".pyc", ".pyi", ".so", ".json", ".txt", ".md", ".zip", ".whl", ".egg", ".jar"}
DEEPSPEED = re.compile(r".*zero_pp_rank_[0-9]+.*_optim_states\.pt")


@dataclass(frozen=True)
class WeightFile:
    """A file of weights, or the shards of a checkpoint.

    Attributes:
        path: The file; the index or the first file of shards; or the directory, if the format is one.
        files: The file itself, or all shards.
        reason: Why it cannot be read, if its name or its shards already say so.
        kind: Name of the format, if no reader of htsr knows it.
    """

    path: Path
    files: tuple[Path, ...]
    reason: str = ""
    kind: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files if file.is_file())

    def list_tensors(self) -> Listing:
        """List the tensors, with quantised weights multiplied out; raise InputError or OSError if that is impossible."""
        if self.reason:
            raise InputError(self.reason)
        first = self.files[0]
        if self.path.is_dir() or (len(self.files) == 1 and first == self.path):
            return list_tensors(self.path)
        format_ = _format_of_shards(first)
        return effective_weights(multiply_scales(format_.list_tensors(self.path, self.files)))

    def format(self) -> str:
        """Return the name of the format for people; empty if it is unknown."""
        if self.kind:
            return self.kind
        if self.path.is_dir():
            return "torch.distributed" if self.files else ""
        try:
            found = format_of(self.files[0]) if self.files else None
            if found is TORCH and is_torchscript(archive_entries(self.files[0], TORCH.kind)):
                return "TorchScript"
        except (InputError, OSError):  # older files of torch are no archives; damaged ones have a row with the reason
            found = BY_SUFFIX.get(self.path.suffix.lower())
        return found.kind.split()[0] if found else ""


def find_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[WeightFile], list[str]]:
    """Return the weight files of some paths and packages, each path once, and the inputs that hold none.

    Raises:
        FileNotFoundError: If an input is neither a path nor an installed package.
        InputError: If an input is a URL.
    """
    found: dict[str, WeightFile] = {}
    without = []
    for path in paths:
        given = os.fspath(path)
        before = len(found)
        repeated = False
        for file in _entries(given):
            repeated = repeated or os.path.abspath(file.path) in found
            found.setdefault(os.path.abspath(file.path), file)
        if len(found) == before and not repeated:
            without.append(given)
    return list(found.values()), without


def _entries(given: str) -> Iterator[WeightFile]:
    """Yield the weight files of one path or package."""
    if is_url(given):
        raise InputError(f"{given}: expected a path or the name of an installed package, got a URL: download it first")
    path = Path(given)
    if given and path.is_dir():
        refused: list[OSError] = []
        for folder, names in _folders(path, refused):
            yield from _in_folder(folder, names)
        for err in refused:
            yield WeightFile(Path(err.filename), (), reason=f"the folder cannot be read: {err.strerror}")
    elif path.name.endswith(".index.json") and path.is_file():
        yield _indexed(path)
    elif given and (path.is_symlink() or path.exists()):
        numbered = NUMBERED.fullmatch(path.name) and path.suffix.lower() in BY_SUFFIX
        yield _sharded(path) if numbered else _single(path)
    else:
        for folder, names in package_files(given):
            yield from _in_folder(folder, names)


def _folders(root: Path, refused: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Yield every visible folder below a directory once, whatever links lead to it, with the names of its files."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=refused.append):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted((name for name in below if not name.startswith((".", "__pycache__"))), key=natural_order)
        yield Path(folder), names


def _in_folder(folder: Path, names: Sequence[str]) -> Iterator[WeightFile]:
    """Yield the weight files among the files of one folder, in natural order."""
    left = {name: folder / name for name in sorted(names, key=natural_order) if not name.startswith("._")}
    entries: list[WeightFile] = []
    if ".metadata" in left and any(name.endswith(".distcp") for name in left):
        entries.append(WeightFile(folder, tuple(left[name] for name in left if name.endswith(".distcp"))))
    if any(DEEPSPEED.fullmatch(name) for name in left):
        states = tuple(path for name, path in left.items() if name.endswith(".pt"))
        entries.append(WeightFile(folder, states, reason=_refusal(folder), kind="DeepSpeed ZeRO"))
        left = {name: path for name, path in left.items() if path not in states}
    left = {name: path for name, path in left.items() if not name.startswith(".")}
    for name in [name for name in left if re.fullmatch(r".*\.(safetensors|bin)\.index\.json", name)]:
        entries.append(_indexed(left.pop(name)))
    for name in [name for name in left if NUMBERED.fullmatch(name) and Path(name).suffix.lower() in BY_SUFFIX]:
        if not any(left[name] in entry.files for entry in entries):
            entries.append(_sharded(left[name]))
    taken = {file for entry in entries for file in entry.files}
    entries += [_single(path) for path in left.values() if path not in taken and _holds_weights(path)]
    yield from sorted(entries, key=lambda entry: natural_order(entry.path.name))


def _refusal(folder: Path) -> str:
    """Return why the directory of a DeepSpeed training cannot be read."""
    try:
        list_tensors(folder)
    except InputError as err:
        return str(err)
    return f"{folder}: the states of DeepSpeed's ZeRO"


def _indexed(index: Path) -> WeightFile:
    """Return the checkpoint whose shards an index names."""
    try:
        names = sorted(named_by_index(index), key=natural_order)
    except (InputError, OSError) as err:
        return WeightFile(index, (index,), reason=str(err))
    strange = [name for name in names if not _can_be_beside(index, name)]
    shards = (index,) if strange else tuple(index.parent / name for name in names)  # a strange name is never opened
    missing = strange or [shard.name for shard in shards if not shard.is_file()]
    reason = ""
    if missing or not names:
        reason = (
            f"{index}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing[:3]):.200}; fetch them"
        )
    return WeightFile(index, shards, reason=reason)


def _can_be_beside(path: Path, name: str) -> bool:
    """Return whether a file of this name can stand beside another one: a plain name that the file system could hold."""
    try:
        path.with_name(name).lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _sharded(path: Path) -> WeightFile:
    """Return the checkpoint of which a numbered file is a part."""
    try:
        parts = tuple(sibling_parts(path))
    except (InputError, OSError) as err:
        same = NUMBERED.fullmatch(path.name)
        assert same is not None
        there = tuple(
            sorted(path.parent.glob(f"{glob.escape(same['stem'])}*-of-{same['count']}.{glob.escape(same['suffix'])}"))
        )
        return WeightFile(there[0] if there else path, there or (path,), reason=str(err))
    return WeightFile(parts[0], parts)


def _single(path: Path) -> WeightFile:
    """Return the entry of one file; one that no reader knows gets a reason."""
    foreign = foreign_model(path)
    if foreign is None:
        return WeightFile(path, (path,))
    what, remedy = foreign
    return WeightFile(path, (path,), reason=f"{what}: {remedy}", kind=what.split(" ", 1)[1])


def _holds_weights(path: Path) -> bool:
    """Return whether a file holds weights by its suffix or, for torch and GGUF, by its content."""
    suffix = path.suffix.lower()
    if suffix in BY_SUFFIX or foreign_model(path) is not None:
        return True
    if suffix in NEVER or not path.is_file():
        return False
    try:
        return format_by_content(path) in (TORCH, GGUF)
    except (InputError, OSError):  # a damaged archive with a foreign suffix says nothing about weights
        return False


def _format_of_shards(first: Path) -> Format:
    """Return the format of the shards of a checkpoint."""
    found = format_of(first) if first.suffix != ".distcp" else TORCH_DISTRIBUTED
    if found is None or not found.shards:
        raise InputError(f"{first}: one of several files, but files of this format are never shards: pass it alone")
    return found
