"""A capture of a model in training, and the file that keeps it."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from htsr.audit.row import known_cells
from htsr.files import written_aside
from htsr.spectra.spectrum import Spectrum
from htsr.training.store.files import READABLE, SCHEMA

WEIGHTS = "weights"
# What can be captured of a layer; each has the layer's shape.
QUANTITIES = (WEIGHTS, "gradients", "momentum", "updates")
# What numpy, zipfile, json and ``Capture.load`` raise for a damaged file.
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Capture:
    """What the Monitor saw at one step."""

    step: int  # optimizer steps done
    seconds: float  # since the monitor started
    analysis_seconds: float  # that the analysis of this capture took, on whichever thread
    rows: list[dict[str, object]]  # one a layer and quantity, as in Analysis.details, with the Monitor's own cells
    spectra: dict[tuple[str, str], Spectrum] = field(repr=False)  # by quantity and name
    groups: list[dict[str, object]]  # of the optimizer: settings that are numbers or words, and update_rms

    def save(self, path: Path) -> None:
        """Write the capture as one npz file, which appears complete or not at all."""
        about = {
            "schema": SCHEMA,
            "step": self.step,
            "seconds": self.seconds,
            "analysis_seconds": self.analysis_seconds,
            "rows": [known_cells(row) for row in self.rows],
            "groups": self.groups,
            "spectra": [
                {"quantity": quantity, "name": name, "shape": s.shape, "size": len(s)}
                for (quantity, name), s in self.spectra.items()
            ],
        }
        with written_aside(path) as file:
            np.savez(
                file,
                about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
                eigenvalues=np.concatenate([[], *(s.eigenvalues for s in self.spectra.values())]),
            )

    @classmethod
    def load(cls, path: Path) -> "Capture":
        """Return the capture that ``save`` wrote; raise one of ``DAMAGE`` if the file is damaged or its schema unknown."""
        with np.load(path, allow_pickle=False) as parts:
            about = json.loads(parts["about"].tobytes())
            eigenvalues = parts["eigenvalues"]
        schema = about.pop("schema", 1)
        if schema not in READABLE:
            raise ValueError(f"expected a part of schema {SCHEMA}, got {schema!r}")
        listed = about.pop("spectra")
        ends = np.cumsum([item["size"] for item in listed], dtype=np.int64)
        spectra = {
            (item.get("quantity", WEIGHTS), item["name"]): Spectrum(
                eigenvalues[end - item["size"] : end], tuple(item["shape"])
            )
            for item, end in zip(listed, ends, strict=True)
        }
        return cls(spectra=spectra, **about)
