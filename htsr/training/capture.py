"""One look at a model in training, and the file that keeps it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from htsr.files import written_aside
from htsr.spectrum import Spectrum


@dataclass(frozen=True)
class Capture:
    """What the monitor saw at one step.

    Attributes:
        step: Number of optimizer steps done.
        seconds: Since the monitor started.
        analysis_seconds: What this capture itself took.
        rows: One row a layer, as in ``Analysis.details``.
        spectra: Spectrum of each layer that has one, by name.
        groups: Settings of the optimizer's parameter groups that are numbers or words: lr, power, and so on.
    """

    step: int
    seconds: float
    analysis_seconds: float
    rows: list[dict[str, object]]
    spectra: dict[str, Spectrum] = field(repr=False)
    groups: list[dict[str, object]]

    def save(self, path: Path) -> None:
        """Write the capture as one npz file, all of it or nothing."""
        about = {
            "step": self.step,
            "seconds": self.seconds,
            "analysis_seconds": self.analysis_seconds,
            "rows": self.rows,
            "groups": self.groups,
            "spectra": [{"name": name, "shape": s.shape, "size": len(s)} for name, s in self.spectra.items()],
        }
        with written_aside(path) as file:
            np.savez(
                file,
                about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
                eigenvalues=np.concatenate([[], *(s.eigenvalues for s in self.spectra.values())]),
            )

    @classmethod
    def load(cls, path: Path) -> "Capture":
        """Read a capture back."""
        with np.load(path, allow_pickle=False) as parts:
            about = json.loads(parts["about"].tobytes())
            eigenvalues = parts["eigenvalues"]
        listed = about.pop("spectra")
        ends = np.cumsum([item["size"] for item in listed], dtype=np.int64)
        spectra = {
            item["name"]: Spectrum(eigenvalues[end - item["size"] : end], tuple(item["shape"]))
            for item, end in zip(listed, ends, strict=True)
        }
        return cls(spectra=spectra, **about)


def capture_name(step: int) -> str:
    """Name of the file of a capture; names sort as steps do."""
    return f"step-{step:012d}.npz"
