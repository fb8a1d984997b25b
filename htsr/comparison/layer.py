"""One layer in two versions: its distances and its row of a comparison."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from htsr.audit.columns import COMPARISON_COLUMNS, LOW_RANK
from htsr.audit.findings import Finding, findings_of_row
from htsr.audit.layer import FAILURES, LayerAnalysis, Settings, analyze_layer, failed_layer
from htsr.audit.row import Row, comparison_row, tied_row
from htsr.comparison.distances import overlap, similarity
from htsr.comparison.findings import MOSTLY_ROUNDING, findings_of_change
from htsr.comparison.kinds import Signature, signature
from htsr.spectra.spectrum import BLOCK_ROWS, esd, rounding_edge
from htsr.weights import Layer

__all__ = ["COMPARISON_COLUMNS", "LayerComparison", "compare_layer"]


@dataclass(frozen=True)
class LayerComparison:
    """One layer of a comparison.

    Attributes:
        row: Its row of ``Comparison.details``, as a dict with every column; a missing number is NaN, a missing text empty.
        a: The analysis of the layer in A.
        b: The same in B.
        delta: The same of the change, B - A.
        angles_out: Principal angles between the leading subspaces of A and B on the output side, radians, descending.
        angles_in: The same on the input side.
        signature: What its change says about the kind of change of the model; None if the comparison failed.
    """

    row: Row
    a: LayerAnalysis
    b: LayerAnalysis
    delta: LayerAnalysis
    angles_out: np.ndarray
    angles_in: np.ndarray
    signature: Signature | None = None

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.row["name"])

    @property
    def findings(self) -> list[Finding]:
        """What a person should look at, the worst first; none for a layer that is tied to an earlier one."""
        return [] if self.row["tied_to"] else findings_of_change(self.row, self.signature)

    def repeated(self, layer: Layer) -> "LayerComparison":
        """The same numbers for a layer that shares this one's weight.

        Args:
            layer: The layer, tied to this one.

        Returns:
            Its comparison.
        """
        a, b, delta = (side.repeated(layer) for side in (self.a, self.b, self.delta))
        return replace(self, row=tied_row(self.row, layer), a=a, b=b, delta=delta)

    def __repr__(self) -> str:
        return f"LayerComparison({self.name!r}, {self.row['status']}, A: {self.a.fit}, B: {self.b.fit}, change: {self.delta.fit})"


def compare_layer(
    layer_a: Layer, layer_b: Layer, rank: int, settings: Settings, other: Layer | None = None
) -> LayerComparison:
    """Compare two versions of a layer; if a weight cannot be read or used, the comparison is failed and says why.

    ``other`` is the same layer of another parent of B.
    """
    try:
        A, B = (_on_a_device_with_float64(layer.load()) for layer in (layer_a, layer_b))
        C = None if other is None else _on_a_device_with_float64(other.load())
    except FAILURES as err:
        of_a, of_b = failed_layer(layer_a, err), failed_layer(layer_b, err)
        return _failed(of_a, of_b, of_a, of_a.fit.reason)
    B = B.to(A.device)
    # torch compares no 8-bit floats that share memory
    same = A.dtype == B.dtype and torch.equal(*(W.float() if W.dtype.itemsize == 1 else W for W in (A, B)))
    wide = torch.float64 if torch.float64 in (A.dtype, B.dtype) else torch.float32
    delta = B.to(wide) - A.to(wide)
    N, M = max(A.shape[:2]), min(A.shape[:2])
    noise = sum(rounding_edge(torch.finfo(W.dtype).eps, _norm(W) ** 2 / W.numel(), N, M) for W in (A, B))

    of_a = analyze_layer(replace(layer_a, load=lambda: A), settings)
    of_b = of_a if same else analyze_layer(replace(layer_b, load=lambda: B), settings)
    of_delta = _of_change(analyze_layer(replace(layer_a, load=lambda: delta), settings, floor=noise))
    unusable = [f"{side}: {of.fit.reason}" for side, of in (("A", of_a), ("B", of_b)) if of.spectrum is None]
    if unusable or of_delta.spectrum is None:
        return _failed(of_a, of_b, of_delta, "; ".join(unusable) or f"the change: {of_delta.fit.reason}")
    assert of_a.spectrum is not None
    assert of_b.spectrum is not None

    change, largest = _norm(delta), of_delta.spectrum.eigenvalues[-1] or esd(delta)[-1]
    rounding = min(1.0, ratio(math.sqrt(noise * delta.numel()) / (math.sqrt(N) + math.sqrt(M)), change))
    alike = similarity(A, B, rank)
    overlaps = overlap(alike.angles_out), overlap(alike.angles_in)
    signed = signature(
        layer_a.name,
        A,
        B,
        delta,
        (layer_a.dtype, layer_b.dtype),
        other=C,
        evals=(of_a.spectrum.eigenvalues, of_b.spectrum.eigenvalues, of_delta.spectrum.eigenvalues),
        overlap=max(overlaps),
    )
    measured: dict[str, object] = {
        "relative_change": ratio(change, _norm(A)) if change == 0 or _norm(A) > 0 else math.inf,
        "frobenius": change,
        "spectral": math.sqrt(largest),
        "relative_spectral": ratio(math.sqrt(largest), math.sqrt(of_a.spectrum.eigenvalues[-1])),
        "rounding": rounding,
        "alpha_change": of_b.fit.alpha - of_a.fit.alpha,
        "cka": alike.cka,
        "cka_uncentred": alike.cka_uncentred,
        "subspace_rank": len(alike.angles_out),
        "overlap_out": overlaps[0],
        "overlap_in": overlaps[1],
        "angle_out": math.degrees(max(alike.angles_out, default=math.nan)),
        "angle_in": math.degrees(max(alike.angles_in, default=math.nan)),
        "status": "unchanged" if same else "changed",
        "reason": "" if same else _cautions(of_a, of_b, of_delta, rounding, (A.dtype, B.dtype)),
    }
    row = comparison_row(of_a.row, of_b.row, of_delta.row, measured)
    return LayerComparison(row, of_a, of_b, of_delta, alike.angles_out, alike.angles_in, signed)


def _of_change(analysis: LayerAnalysis) -> LayerAnalysis:
    """Return the analysis of a change, in which a low rank is no damage."""
    if analysis.row["phase"] != "rank-collapse":
        return analysis
    row = analysis.row | {"phase": LOW_RANK}
    return replace(analysis, row=row | {"findings": " ".join(map(str, findings_of_row(row)))})


def _failed(of_a: LayerAnalysis, of_b: LayerAnalysis, of_delta: LayerAnalysis, reason: str) -> LayerComparison:
    """Return the comparison of a pair that has no distances, with the reason."""
    measured = {"status": "failed", "reason": reason, "subspace_rank": 0}
    row = comparison_row(of_a.row, of_b.row, of_delta.row, measured)
    return LayerComparison(row, of_a, of_b, of_delta, np.empty(0), np.empty(0))


def _cautions(
    of_a: LayerAnalysis,
    of_b: LayerAnalysis,
    of_delta: LayerAnalysis,
    rounding: float,
    dtypes: tuple[torch.dtype, torch.dtype],
) -> str:
    """Return what to be careful about when reading the row."""
    found = [f"{side}: {of.fit.reason}" for side, of in (("A", of_a), ("B", of_b)) if of.fit.status == "failed"]
    if dtypes[0] != dtypes[1]:
        found.append(f"stored as {dtypes[0]} in A, as {dtypes[1]} in B".replace("torch.", ""))
    if rounding > MOSTLY_ROUNDING:
        found.append("most of the change may be rounding")
    elif of_delta.fit.reason:
        found.append(f"the change: {of_delta.fit.reason}")
    elif of_delta.row["phase"] == "random-like":
        found.append("the change looks like noise, whatever its alpha")
    return "; ".join(found)


def _on_a_device_with_float64(weight: torch.Tensor) -> torch.Tensor:
    """Return the weight, on the CPU if it was on one of Apple's GPUs."""
    return weight.cpu() if weight.device.type == "mps" else weight


def _norm(weight: torch.Tensor) -> float:
    """Return the Frobenius norm in float64, computed a block of rows at a time."""
    return math.sqrt(sum(float(block.to(torch.float64).square().sum()) for block in weight.split(BLOCK_ROWS)))


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``, NaN if the whole is zero."""
    return part / whole if whole else math.nan
