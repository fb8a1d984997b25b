"""A folder that keeps each layer of an audit as it is done, so that an interrupted audit can be resumed."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from htsr._version import __version__
from htsr.audit.files_read import FilesRead
from htsr.audit.layer import LayerAnalysis, Settings, restore_layer
from htsr.audit.row import finished, known_cells
from htsr.errors import InputError
from htsr.files import ASIDE, FileLock, read_regular, seal, unseal, written_aside
from htsr.spectra.spectrum import Spectrum
from htsr.weights import Inventory

# What the audit is, and the lock that also says whose folder this is.
ABOUT, LOCK = "audit.json", "htsr-journal.lock"
OURS = re.compile(rf"{re.escape(ABOUT)}|{re.escape(LOCK)}|[0-9]{{6,}}\.npz|{re.escape(ASIDE)}[0-9a-f]{{16}}")


class JournalFolder:
    """The folder of a journal, made if it is missing, and locked until ``close``.

    It raises ``InputError`` if another audit uses the folder, or if there is anything that no journal has written, which then
    stays as it is. With ``anew`` it begins with an empty folder. ``restored`` counts the layers that a journal found in it.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        self.restored = 0
        _refuse_strange(path)
        self._lock = FileLock(path / LOCK, f"{path}: another audit keeps its layers there; let it finish")
        self._open = True
        if anew:
            self.clear()

    def clear(self) -> None:
        """Delete what the journal has written."""
        for file in self.path.iterdir():
            if OURS.fullmatch(file.name) and file.name != LOCK:
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder; a file that somebody put there meanwhile stays, and the folder with it."""
        self.clear()
        self.close()

    def close(self) -> None:
        """Let others use the folder, or delete it if it holds no layer."""
        if self._open and not any(self.path.glob("*.npz")):
            self.clear()
            with suppress(OSError):  # Windows deletes no open file, and leaves an empty folder
                (self.path / LOCK).unlink()
                self.path.rmdir()
        self._open = False
        self._lock.release()


class Journal:
    """The layers of one audit that are done, one file each, in a folder.

    It raises ``InputError`` if the folder holds the journal of another audit: other files by content, or other settings.
    """

    def __init__(self, folder: JournalFolder, files: FilesRead, inventory: Inventory, settings: Settings) -> None:
        self.path, self._folder, self._files, self._settings = folder.path, folder, files, settings
        self._numbers = {layer.name: i for i, layer in enumerate(inventory.layers)}
        about = {
            "htsr": __version__,
            "source": _absolute(inventory.source),
            "files": files.contents,
            "state": inventory.state,
            "layers": [[layer.name, list(layer.shape), layer.dtype] for layer in inventory.layers],
            **asdict(settings),
        }
        del about["device"]  # another device makes it no other audit
        files.check()  # the inventory was made of what was hashed
        if (self.path / ABOUT).exists():
            self._check(about)
        else:
            folder.clear()  # layers of which nobody knows the audit
            with written_aside(self.path / ABOUT) as file:
                file.write(seal(json.dumps(about).encode()))

    def _check(self, about: dict[str, object]) -> None:
        """Refuse to continue a journal that does not begin with ``about``."""
        try:
            kept = json.loads(unseal(read_regular(self.path / ABOUT)))
        except (OSError, ValueError):
            kept = {}
        differing = [name for name, value in about.items() if kept.get(name) != json.loads(json.dumps(value))]
        if differing:
            raise InputError(
                f"{self.path}: holds another audit, which differs in {', '.join(differing)}; finish that audit, delete the "
                f"folder, or choose another one"
            )

    def done(self) -> dict[str, LayerAnalysis]:
        """Return the layers that are done, by name; a damaged file does not count."""
        found = {}
        for name in self._numbers:
            path = self._file(name)
            try:
                content = unseal(read_regular(path), path.name)
                with np.load(io.BytesIO(content), allow_pickle=False) as parts:
                    row = json.loads(parts["row"].tobytes())
                    shape = row.pop("shape", None)
                    spectrum = None if shape is None else Spectrum(parts["eigenvalues"], shape)
                    shuffled = Spectrum(parts["shuffled"], shape) if "shuffled" in parts else None
            except (OSError, ValueError):  # what has an intact seal is what add() wrote
                continue
            found[name] = restore_layer(finished(row), spectrum, self._settings, shuffled)
        self._folder.restored = len(found)
        return found

    def add(self, result: LayerAnalysis) -> None:
        """Write the file of a layer that is done, unless the files it was read from have changed: that is an ``InputError``."""
        row, evals = known_cells(result.row), np.empty(0)
        if result.spectrum is not None:
            row["shape"], evals = list(result.spectrum.shape), result.spectrum.eigenvalues
        arrays: dict[str, Any] = {"row": np.frombuffer(json.dumps(row).encode(), dtype=np.uint8), "eigenvalues": evals}
        if result.shuffled is not None:
            arrays["shuffled"] = result.shuffled.eigenvalues
        content = io.BytesIO()
        np.savez(content, **arrays)
        self._files.check()
        path = self._file(result.name)
        with written_aside(path) as file:
            file.write(seal(content.getvalue(), path.name))

    def verify(self) -> None:
        """Read all files once more; if one has changed, forget every layer and raise ``InputError``."""
        try:
            self._files.verify()
        except InputError:
            self._folder.clear()
            raise

    def _file(self, name: str) -> Path:
        return self.path / f"{self._numbers[name]:06d}.npz"


@contextmanager
def opened_folder(journal: str | Path | JournalFolder | None) -> Iterator[JournalFolder | None]:
    """Open the folder of a journal for the time of an audit; one that is open already stays open."""
    if journal is None or isinstance(journal, JournalFolder):
        yield journal
        return
    folder = JournalFolder(Path(journal))
    try:
        yield folder
    finally:
        folder.close()


def _refuse_strange(path: Path) -> None:
    """Raise ``InputError`` if a path leads to anything but a folder of ours, an empty one, or nothing."""
    expected = f"{path}: expected the folder of an interrupted audit or a new one"
    try:
        files = {entry.name for entry in path.iterdir()} if not path.is_symlink() else {"."}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise InputError(f"{expected}, got a file; move it, or choose another place") from None
    strange = sorted(name for name in files if not OURS.fullmatch(name))
    if strange or (files and LOCK not in files):
        what = "a link" if path.is_symlink() else f"one with {(strange or sorted(files))[0]!r} in it"
        raise InputError(f"{expected}, got {what}; move it, or choose another place")


def _absolute(source: str) -> str:
    """Return one name for one file, whatever the working directory; a URL stays as it is."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source
