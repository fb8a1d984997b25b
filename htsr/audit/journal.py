"""What an audit has already found, kept while it runs, so that an interrupted one can go on."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from htsr._version import __version__
from htsr.audit.layer import LayerAnalysis, Settings, restore_layer
from htsr.errors import InputError
from htsr.files import written_aside
from htsr.spectra.spectrum import Spectrum
from htsr.weights import Inventory

ABOUT = "audit.json"
# Formats that audits write and no source has.
REPORTS = (".html", ".csv", ".parquet")


class Journal:
    """A folder with one file for each layer that is done.

    Args:
        path: The folder; made if it is not there, continued if it is.
        inventory: What is being audited.
        settings: How.

    Raises:
        InputError: If the folder holds something else, or another audit: of another source, or with other settings.
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
        del about["device"]  # where it is computed is no other audit
        if (path / ABOUT).is_file():
            self._check(about)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: expected the folder of an interrupted audit or a new one, got something else")
        else:
            path.mkdir(parents=True, exist_ok=True)
            with written_aside(path / ABOUT) as file:
                file.write(json.dumps(about).encode())

    def _check(self, about: dict[str, object]) -> None:
        try:
            kept = json.loads((self.path / ABOUT).read_text())
        except ValueError:
            kept = {}
        differing = [name for name, value in about.items() if kept.get(name) != value]
        if differing:
            raise InputError(
                f"{self.path}: holds another audit, which differs in {', '.join(differing)}; finish that one, delete the "
                f"folder, or choose another"
            )

    def done(self) -> dict[str, LayerAnalysis]:
        """Layers that are done, by name. A file that cannot be read is as good as none."""
        found = {}
        for name in self._numbers:
            try:
                with np.load(self._file(name), allow_pickle=False) as parts:
                    row = json.loads(parts["row"].tobytes())
                    shape = row.pop("shape", None)
                    spectrum = None if shape is None else Spectrum(parts["eigenvalues"], shape)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            found[name] = restore_layer(row, spectrum, self._settings)
        return found

    def add(self, result: LayerAnalysis) -> None:
        """Keep a layer."""
        row, evals = dict(result.row), np.empty(0)
        if result.spectrum is not None:
            row["shape"], evals = list(result.spectrum.shape), result.spectrum.eigenvalues
        with written_aside(self._file(result.name)) as file:
            np.savez(file, row=np.frombuffer(json.dumps(row).encode(), dtype=np.uint8), eigenvalues=evals)

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path)

    def _file(self, name: str) -> Path:
        return self.path / f"{self._numbers[name]:06d}.npz"


def _absolute(source: str) -> str:
    """The same name for the same file; a URL as it is."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def _files(source: str, journal: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files that a path stands for, with what changes when they do; what audits write there is none of them."""
    path = Path(source).resolve()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        written = file.suffix in REPORTS or journal.resolve() in file.parents
        if file.is_file() and not written:
            yield file, file.stat()
