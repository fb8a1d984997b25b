"""One look at a model in training, and the file that keeps it."""

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
# What can be captured of a layer; all have its shape.
QUANTITIES = (WEIGHTS, "gradients", "momentum", "updates")
# What numpy, zipfile, json and ``Capture.load`` raise at a file that is not whole.
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Capture:
    """What the monitor saw at one step.

    Attributes:
        step: Number of optimizer steps done.
        seconds: Since the monitor started.
        analysis_seconds: What this capture itself took, on whichever thread.
        rows: One row a layer and quantity, as in ``Analysis.details``, with ``quantity``, ``distance`` and
            ``relative_distance`` besides. A file leaves out the cells that are NaN.
        spectra: Spectrum of each layer that has one, by quantity and name.
        groups: The optimizer's parameter groups: settings that are numbers or words (lr, power, ...), ``update_rms``.
    """

    step: int
    seconds: float
    analysis_seconds: float
    rows: list[dict[str, object]]
    spectra: dict[tuple[str, str], Spectrum] = field(repr=False)
    groups: list[dict[str, object]]

    def save(self, path: Path) -> None:
        """Write the capture as one npz file, all of it or nothing."""
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
        """Read a capture back.

        Args:
            path: A file that ``save`` wrote, in this version or one whose schema is readable.

        Returns:
            The capture.

        Raises:
            ValueError: If the schema is unknown. A damaged file raises one of ``DAMAGE``.
        """
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
