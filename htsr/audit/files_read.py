"""The files whose content an audit of a checkpoint rests on, and whether they stay the same."""

import hashlib
import io
import os
import pickle
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

from htsr.audit.progress import tqdm
from htsr.errors import InputError
from htsr.files import open_regular
from htsr.weights import Inventory

# Nobody has as many; a listing of a folder stops here.
MAX_FILES = 10_000
# Threads that read and hash; hashlib lets go of the GIL.
THREADS = min(4, os.cpu_count() or 1)

# What stands in place of the digest of a file that is not what was audited any more.
CHANGED = "changed since the analysis"

Stamp = tuple[int, ...]


class FilesRead:
    """The files that are read for an inventory, by content: weights, external data, and every JSON file beside them.

    Making one reads them all. ``check`` is cheap: it reads again only what looks touched. ``verify`` reads all of them again.
    ``progress`` shows or hides a bar, as in ``analyze``.
    """

    def __init__(self, inventory: Inventory, roots: Iterable[Path], progress: bool | None = False) -> None:
        self._progress = progress
        self._paths = sorted(set(_files(inventory, roots)))
        self._hashed = self._hash(self._paths)

    @property
    def contents(self) -> list[list[str]]:
        """Name and digest of each file, sorted, without folders: copies in another place are the same."""
        return sorted([path.name, digest] for path, (_, digest) in self._hashed.items())

    def check(self) -> None:
        """Raise ``InputError`` if a file has changed, as far as size, times and place of the file tell."""
        touched = [path for path, (stamp, _) in self._hashed.items() if _stamp(path) != stamp]
        if touched:
            self._compare(touched)

    def verify(self) -> None:
        """Raise ``InputError`` if the content of a file has changed."""
        self._compare(self._paths)

    def _compare(self, paths: list[Path]) -> None:
        now = self._hash(paths)
        for path in paths:
            if now[path][1] != self._hashed[path][1]:
                raise _changed(path)
        self._hashed |= now

    def _hash(self, paths: list[Path]) -> dict[Path, tuple[Stamp, str]]:
        disable = None if self._progress is None else not self._progress
        with ThreadPoolExecutor(THREADS) as pool:
            hashed = pool.map(_hash, paths)
            bar = tqdm(
                hashed, total=len(paths), desc="compare files", unit="file", delay=1, leave=False, disable=disable
            )
            return dict(zip(paths, bar, strict=True))


def stamps(inventory: Inventory) -> dict[Path, Stamp]:
    """Return the files that hold the weights of an inventory, each with what changes when it is written or replaced."""
    loaded = _paths_in([layer.load for layer in inventory.layers])
    files = {path for path in loaded if _is_file(path)}
    for folder in filter(Path.is_dir, loaded):  # torch.distributed.checkpoint
        files.update(_listed(folder))
    found = {path: _stamp(path) for path in sorted(files)}
    return {path: stamp for path, stamp in found.items() if stamp is not None}


def changed_since(stamps: Mapping[Path, Stamp]) -> list[Path]:
    """Return the files that are gone, or no longer what they were at their stamps."""
    return [path for path, stamp in stamps.items() if _stamp(path) != stamp]


def digests(stamps: Mapping[Path, Stamp]) -> dict[str, str]:
    """Return the BLAKE2b digest of each file by its path; of one that changed since its stamp, that it did."""

    def digest(path: Path) -> str:
        try:
            stamp, digest = _hash(path)
        except (InputError, OSError):
            return CHANGED
        return digest if stamp == stamps[path] else CHANGED

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(map(str, stamps), pool.map(digest, stamps), strict=True))


def _changed(path: Path) -> InputError:
    return InputError(f"{path}: the file changed while it was audited; audit it again once it is whole")


def _stamp(path: Path) -> Stamp | None:
    """Return what changes when a file is written or replaced; None if it is gone. No program can set the time of change back."""
    try:
        return _stamp_of(path.stat())
    except OSError:
        return None


def _stamp_of(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _hash(path: Path) -> tuple[Stamp, str]:
    """Return the stamp and the digest of a file, which must not change meanwhile."""
    try:
        with open_regular(path) as file:
            before = _stamp_of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "blake2b").hexdigest()
            after = _stamp_of(os.fstat(file.fileno()))
    except FileNotFoundError:
        raise _changed(path) from None
    if after != before:
        raise _changed(path)
    return after, digest


def _files(inventory: Inventory, roots: Iterable[Path]) -> Iterator[Path]:
    """Yield every file that is read for an inventory; ``roots`` are the local paths that were opened."""
    loaded = _paths_in([layer.load for layer in inventory.layers])
    folders = {root.absolute() for root in roots}
    for path in loaded | folders:
        if path.is_dir():
            folders.add(path)
        elif _is_file(path):
            folders.add(path.parent)
            yield path
            if path.suffix.lower() == ".onnx":
                from htsr.weights.readers.onnx.files import external_files

                yield from filter(_is_file, external_files(path))
    for folder in filter(Path.is_dir, folders):
        for path in _listed(folder):
            if folder in loaded or path.suffix.lower() == ".json":
                yield path


def _listed(folder: Path) -> Iterator[Path]:
    """Yield the regular files in a folder."""
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number == MAX_FILES:
                raise InputError(f"{folder}: holds more than {MAX_FILES} files, too many to see whether they change")
            if _is_file(path := Path(entry.path)):
                yield path


def _is_file(path: Path) -> bool:
    """Return whether a path leads to a regular file."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


class _PathCollector(pickle.Pickler):
    """Pickles an object only to see which paths it holds."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found: set[Path] = set()

    def persistent_id(self, obj: object) -> str | None:
        if not isinstance(obj, PurePath) and not (isinstance(obj, str) and os.path.isabs(obj)):
            return None
        self.found.add(Path(obj).absolute())
        return "path"


def _paths_in(loads: object) -> set[Path]:
    """Return the paths that these functions read: each can be pickled, with the paths as arguments."""
    collector = _PathCollector()
    collector.dump(loads)
    return collector.found
