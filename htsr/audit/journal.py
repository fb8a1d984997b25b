"""A folder that keeps each layer of an audit as it is done, so that an interrupted audit can be resumed."""

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from htsr._version import __version__
from htsr.audit.layer import LayerAnalysis, Settings, restore_layer
from htsr.audit.row import finished, known_cells
from htsr.errors import InputError
from htsr.files import written_aside
from htsr.spectra.spectrum import Spectrum
from htsr.weights import Inventory

ABOUT = "audit.json"
# Suffixes of what an audit may write beside the checkpoint that it reads.
REPORTS = (".html", ".csv", ".parquet")


class Journal:
    """A folder with one file for each layer that is done; made if it is not there, continued if it is.

    It raises ``InputError`` if the folder holds anything else, or the journal of another source or other settings.
    """

    def __init__(self, path: Path, inventory: Inventory, settings: Settings) -> None:
        self.path = path
        self._settings = settings
        self._numbers = {layer.name: i for i, layer in enumerate(inventory.layers)}
        about = {
            "htsr": __version__,
            "source": _absolute(inventory.source),
            "files": [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in _files(inventory.source, path)],
            "layers": [[layer.name, list(layer.shape), layer.dtype] for layer in inventory.layers],
            **asdict(settings),
        }
        del about["device"]  # another device makes it no other audit
        if (path / ABOUT).is_file():
            self._check(about)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: expected the folder of an interrupted audit or a new one, got something else")
        else:
            path.mkdir(parents=True, exist_ok=True)
            with written_aside(path / ABOUT) as file:
                file.write(json.dumps(about).encode())

    def _check(self, about: dict[str, object]) -> None:
        """Refuse to continue a journal that does not begin with ``about``."""
        try:
            kept = json.loads((self.path / ABOUT).read_text())
        except ValueError:
            kept = {}
        differing = [name for name, value in about.items() if kept.get(name) != value]
        if differing:
            raise InputError(
                f"{self.path}: holds another audit, which differs in {', '.join(differing)}; finish that audit, delete the "
                f"folder, or choose another one"
            )

    def done(self) -> dict[str, LayerAnalysis]:
        """Return the layers that are done, by name; a damaged file does not count."""
        found = {}
        for name in self._numbers:
            try:
                with np.load(self._file(name), allow_pickle=False) as parts:
                    row = json.loads(parts["row"].tobytes())
                    shape = row.pop("shape", None)
                    spectrum = None if shape is None else Spectrum(parts["eigenvalues"], shape)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            found[name] = restore_layer(finished(row), spectrum, self._settings)
        return found

    def add(self, result: LayerAnalysis) -> None:
        """Write the file of a layer that is done."""
        row, evals = known_cells(result.row), np.empty(0)
        if result.spectrum is not None:
            row["shape"], evals = list(result.spectrum.shape), result.spectrum.eigenvalues
        with written_aside(self._file(result.name)) as file:
            np.savez(file, row=np.frombuffer(json.dumps(row).encode(), dtype=np.uint8), eigenvalues=evals)

    def _file(self, name: str) -> Path:
        return self.path / f"{self._numbers[name]:06d}.npz"


def _absolute(source: str) -> str:
    """Return one name for one file, whatever the working directory; a URL stays as it is."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def _files(source: str, journal: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of a checkpoint with their status, without the outputs and the journal that an audit writes there."""
    path = Path(source).resolve()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        written = file.suffix in REPORTS or journal.resolve() in file.parents
        if file.is_file() and not written:
            yield file, file.stat()
