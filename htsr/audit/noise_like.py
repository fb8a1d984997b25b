"""What a layer differs from Gaussian noise by: the scales of its rows and columns, its entries, or more than these."""

from typing import NamedTuple

import torch

from htsr.audit.phases import BEYOND, STRUCTURED, SUFFICIENT, Phase
from htsr.bulk.independence import Independence, independence
from htsr.choices import Null
from htsr.p_values import NULL_P

# Noise passes for structure in this share of matrices.
EXPLAINED_LEVEL = 0.02
# A spectrum may pass for that of noise though the entries are not independent; below this, they are not. An untrained model with
# hundreds of layers hardly meets it by chance.
STRUCTURE_LEVEL = 1e-4
# With a larger share of zeros, the zeros are what differs from Gaussian entries.
MANY_ZEROS = 0.02


class NoiseTest(NamedTuple):
    """The test of a layer against noise that keeps its scales, or its scales and entries."""

    null: Null
    weight: torch.Tensor
    found: Independence

    @property
    def p_value(self) -> float:
        """How rarely such noise looks as structured as the layer."""
        return self.found.p_value

    @property
    def explanation(self) -> str:
        """The simplest explanation that suffices; empty if noise passes, but nothing tells it from Gaussian noise."""
        found = self.found
        if found.p_value < EXPLAINED_LEVEL:
            return BEYOND[self.null]
        if not found.scales:
            return "" if not found.entries or self.null == "profile" else _of_entries(found)
        if not found.entries or self.null == "profile":
            return "row and column scales"
        plain = independence(self.weight, bounded=False)
        suffices = plain is not None and plain.p_value >= EXPLAINED_LEVEL
        return "row and column scales" if suffices else "scales and entries"

    def judged(self, phase: Phase) -> tuple[Phase, str]:
        """Return the phase in view of this test, and what explains the difference from Gaussian noise, if there is one."""
        if phase.name == "random-like" and self.p_value < STRUCTURE_LEVEL:
            beyond = f"{phase.evidence}, but its entries are not independent ({NULL_P.equals(self.p_value)})"
            return Phase("bulk-decay", self._with_neighbours(beyond)), BEYOND[self.null]
        if phase.name not in STRUCTURED:
            return phase, ""
        explanation = self.explanation
        if explanation in SUFFICIENT:
            evidence = f"noise, but for {SUFFICIENT[explanation]} ({NULL_P.equals(self.p_value)})"
            return Phase("random-like", evidence), explanation
        return Phase(phase.name, self._with_neighbours(phase.evidence)), explanation

    def _with_neighbours(self, evidence: str) -> str:
        return "; ".join(filter(None, (evidence, self.found.neighbours)))


def noise_test(weight: torch.Tensor, null: Null) -> NoiseTest | None:
    """Return the test of a weight, or None if Gaussian noise is the only null, or the weight is too small for another."""
    if null == "gaussian":
        return None
    found = independence(weight, bounded=null == "entries")
    return None if found is None else NoiseTest(null, weight, found)


def _of_entries(found: Independence) -> str:
    """Return what is not Gaussian about the entries."""
    return "zero pattern" if found.zeros > MANY_ZEROS else "entries"
