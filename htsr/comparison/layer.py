"""One layer in two versions: its distances and its row of a comparison."""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from htsr.audit.columns import COMPARISON_COLUMNS, LOW_RANK
from htsr.audit.findings import Finding, with_findings
from htsr.audit.layer import FAILURES, LayerAnalysis, Settings, analyze_eigenvalues, failed_layer, load
from htsr.audit.row import Row, comparison_row, tied_row
from htsr.audit.tokens.directions import Directions
from htsr.comparison.distances import Similarity, overlap, similarity, similarity_of_equal
from htsr.comparison.findings import MOSTLY_ROUNDING, change_of_layer, findings_of_change
from htsr.comparison.kinds import Signature, signature
from htsr.comparison.retraining import score_of_change
from htsr.spectra.spectrum import BLOCK_ROWS, Gram, Spectrum, esd, esd_and_leading_vectors, rounding_edge
from htsr.weights import Layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.audit.tokens.stream import Side
    from htsr.plots.style import ManyAxes

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
    _directions: Directions = field(default=Directions(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.row["name"])

    @property
    def findings(self) -> list[Finding]:
        """What a person should look at, the worst first; none for a layer that is tied to an earlier one."""
        return [] if self.row["tied_to"] else findings_of_change(self.row)

    def repeated(self, layer: Layer) -> "LayerComparison":
        """The same numbers for a layer that shares this one's weight.

        Args:
            layer: The layer, tied to this one.

        Returns:
            Its comparison.
        """
        a, b, delta = (side.repeated(layer) for side in (self.a, self.b, self.delta))
        return replace(self, row=tied_row(self.row, layer), a=a, b=b, delta=delta)

    def plot(self, *, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw the layer before and after: the ESDs of A, of B and of the change.

        Args:
            ax: Where to draw: matplotlib axes. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If there is no eigenvalue to draw.
        """
        from htsr.plots import figure_of, plot_esd_of_change

        return figure_of(plot_esd_of_change(self, ax=ax))

    def tokens(self, k: int = 5, *, side: "Side | None" = None, seed: int = 0) -> pd.DataFrame:
        """Name the leading singular directions of the change by the tokens that they promote and suppress.

        Args:
            k: How many directions, as in ``LayerAnalysis.tokens``.
            side: Which singular vectors of the change are meant, as there.
            seed: Of the random directions.

        Returns:
            The table that ``LayerAnalysis.tokens`` returns, of B - A; no row where nothing changed. The embedding is that of B,
            or of A if B has none or no tokenizer.

        Raises:
            InputError: If a source is not a path, as in ``LayerAnalysis.tokens``.
            TypeError: If ``k`` is not a whole number.
            ValueError: If ``k`` is below 1, or ``side`` unknown.
        """
        return self._directions.named(self.name, k, side, seed)

    def _repr_html_(self) -> str:
        from htsr.report.notebook import layer_comparison_html

        return layer_comparison_html(self)

    def __repr__(self) -> str:
        return f"LayerComparison({self.name!r}, {self.row['status']}, A: {self.a.fit}, B: {self.b.fit}, change: {self.delta.fit})"


def compare_layer(
    layer_a: Layer, layer_b: Layer, rank: int, settings: Settings, other: Layer | None = None
) -> LayerComparison:
    """Compare two versions of a layer; if a weight cannot be read or used, the comparison is failed and says why.

    ``other`` is the same layer of another parent of B.
    """
    try:
        A, B = (_on_a_device_with_float64(load(layer, settings)) for layer in (layer_a, layer_b))
        C = None if other is None else _on_a_device_with_float64(load(other, settings))
    except FAILURES as err:
        of_a, of_b = failed_layer(layer_a, err), failed_layer(layer_b, err)
        return _failed(of_a, of_b, of_a, of_a.fit.reason)
    B = B.to(A.device)
    # torch compares no 8-bit floats that share memory
    if A.dtype == B.dtype and torch.equal(*(W.float() if W.dtype.itemsize == 1 else W for W in (A, B))):
        return _unchanged(layer_a, layer_b, A, C, rank, settings)
    wide = torch.float64 if torch.float64 in (A.dtype, B.dtype) else torch.float32
    delta = B.to(wide) - A.to(wide)
    N, M = max(A.shape[:2]), min(A.shape[:2])
    of_a, gram_a, vectors_a = _analysis(layer_a, A, settings, rank)
    of_b, gram_b, vectors_b = _analysis(layer_b, B, settings, rank)
    norm_a, norm_b, change = (_norm(W, gram) for W, gram in ((A, gram_a), (B, gram_b), (delta, None)))
    edges = (rounding_edge(torch.finfo(W.dtype).eps, n**2 / W.numel(), N, M) for W, n in ((A, norm_a), (B, norm_b)))
    noise = sum(edges)
    of_delta = _of_change(_analysis(layer_a, delta, settings, floor=noise)[0])
    unusable = [f"{side}: {of.fit.reason}" for side, of in (("A", of_a), ("B", of_b)) if of.spectrum is None]
    if unusable or of_delta.spectrum is None:
        return _failed(of_a, of_b, of_delta, "; ".join(unusable) or f"the change: {of_delta.fit.reason}")
    assert of_a.spectrum is not None
    assert of_b.spectrum is not None

    largest = of_delta.spectrum.eigenvalues[-1] or esd(delta)[-1]
    rounding = min(1.0, ratio(math.sqrt(noise * delta.numel()) / (math.sqrt(N) + math.sqrt(M)), change))
    grams = None if gram_a is None or gram_b is None else (gram_a, gram_b)
    alike = similarity(A, B, rank, grams, (vectors_a, vectors_b))
    signed = signature(
        layer_a.name,
        A,
        B,
        delta,
        (layer_a.dtype, layer_b.dtype),
        other=C,
        norms=(norm_a, norm_b, change),
        evals=(of_a.spectrum.eigenvalues, of_b.spectrum.eigenvalues, of_delta.spectrum.eigenvalues),
        angles=(alike.angles_out, alike.angles_in),
    )
    kind, evidence = change_of_layer(signed, rounding)
    measured = {
        "relative_change": ratio(change, norm_a) if change == 0 or norm_a > 0 else math.inf,
        "least_relative_change": least_change(of_a.spectrum, of_b.spectrum),
        "frobenius": change,
        "spectral": math.sqrt(largest),
        "relative_spectral": ratio(math.sqrt(largest), math.sqrt(of_a.spectrum.eigenvalues[-1])),
        "rounding": rounding,
        "change": kind,
        "change_evidence": evidence,
        "alpha_change": of_b.fit.alpha - of_a.fit.alpha,
        "alpha_change_score": score_of_change(of_a.fit.alpha, of_b.fit.alpha),
        "status": "changed",
        "reason": _cautions(of_a, of_b, of_delta, rounding, kind, evidence, (A.dtype, B.dtype)),
    }
    return _compared(of_a, of_b, of_delta, measured, alike, signed)


def _unchanged(
    layer_a: Layer, layer_b: Layer, A: torch.Tensor, C: torch.Tensor | None, rank: int, settings: Settings
) -> LayerComparison:
    """Return the comparison of a layer that is equal in A and B: its spectrum is computed once, and no singular vector."""
    of_a, gram, _ = _analysis(layer_a, A, settings)
    zero = torch.zeros((), device=A.device).expand(A.shape)
    of_delta = analyze_eigenvalues(layer_a, zero, np.zeros(layer_a.num_evals), replace(settings, bulk=False))
    if of_a.spectrum is None:
        return _failed(of_a, of_a, of_delta, "; ".join(f"{side}: {of_a.fit.reason}" for side in "AB"))
    norm = _norm(A, gram)
    alike = similarity_of_equal(A, rank, of_a.spectrum)
    dtypes = (layer_a.dtype, layer_b.dtype)
    signed = signature(
        layer_a.name,
        A,
        A,
        zero,
        dtypes,
        other=C,
        norms=(norm, norm, 0.0),
        evals=(of_a.spectrum.eigenvalues,) * 3,
        angles=(alike.angles_out, alike.angles_in),
    )
    measured = {
        "relative_change": ratio(0.0, norm) if norm else 0.0,
        "least_relative_change": 0.0,
        "frobenius": 0.0,
        "spectral": 0.0,
        "relative_spectral": ratio(0.0, of_a.spectrum.eigenvalues[-1]),
        "rounding": math.nan,
        "change": "equal",
        "alpha_change": of_a.fit.alpha - of_a.fit.alpha,
        "alpha_change_score": score_of_change(of_a.fit.alpha, of_a.fit.alpha),
        "status": "unchanged",
    }
    return _compared(of_a, of_a, of_delta, measured, alike, signed)


def _compared(
    of_a: LayerAnalysis,
    of_b: LayerAnalysis,
    of_delta: LayerAnalysis,
    measured: dict[str, object],
    alike: Similarity,
    signed: Signature,
) -> LayerComparison:
    """Return the comparison of a pair, with its similarity in the row."""
    cells = measured | {
        "cka": alike.cka,
        "cka_uncentred": alike.cka_uncentred,
        "subspace_rank": len(alike.angles_out),
        "overlap_out": overlap(alike.angles_out),
        "overlap_in": overlap(alike.angles_in),
        "angle_out": math.degrees(max(alike.angles_out, default=math.nan)),
        "angle_in": math.degrees(max(alike.angles_in, default=math.nan)),
    }
    row = comparison_row(of_a.row, of_b.row, of_delta.row, cells)
    return LayerComparison(row, of_a, of_b, of_delta, alike.angles_out, alike.angles_in, signed)


def _analysis(
    layer: Layer, weight: torch.Tensor, settings: Settings, rank: int = 0, floor: float = 0.0
) -> tuple[LayerAnalysis, Gram | None, np.ndarray | None]:
    """Return the analysis of a weight of a layer, its Gram matrices, None if it has no spectrum, and their leading eigenvectors.

    There are ``rank`` vectors at most, and none where they would cost as much as the eigenvalues.
    """
    try:
        gram = Gram.of(weight)
        # LAPACK overwrites the copy
        evals, vectors = esd_and_leading_vectors(replace(gram, stack=gram.stack.clone()), rank, floor)
    except FAILURES as err:
        return failed_layer(layer, err), None, None
    return analyze_eigenvalues(layer, weight, evals, settings), gram, vectors


def _of_change(analysis: LayerAnalysis) -> LayerAnalysis:
    """Return the analysis of a change, in which a low rank is no damage."""
    if analysis.row["phase"] != "rank-collapse":
        return analysis
    return replace(analysis, row=with_findings(analysis.row | {"phase": LOW_RANK}))


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
    kind: str,
    evidence: str,
    dtypes: tuple[torch.dtype, torch.dtype],
) -> str:
    """Return what to be careful about when reading the row."""
    found = [f"{side}: {of.fit.reason}" for side, of in (("A", of_a), ("B", of_b)) if of.fit.status == "failed"]
    if dtypes[0] != dtypes[1]:
        found.append(f"stored as {dtypes[0]} in A, as {dtypes[1]} in B".replace("torch.", ""))
    if rounding > MOSTLY_ROUNDING:
        found.append("most of the change may be rounding")
    elif kind in ("", "noise") and of_delta.row["phase"] == "random-like":
        found.append("the change looks like noise, whatever its alpha")
    elif evidence:
        found.append(evidence.rstrip("."))
    elif of_delta.fit.reason:
        found.append(f"the change: {of_delta.fit.reason}")
    return "; ".join(found)


def _on_a_device_with_float64(weight: torch.Tensor) -> torch.Tensor:
    """Return the weight, on the CPU if it was on one of Apple's GPUs."""
    return weight.cpu() if weight.device.type == "mps" else weight


def _norm(weight: torch.Tensor, gram: Gram | None = None) -> float:
    """Return the Frobenius norm in float64, from the Gram matrices or computed a block of rows at a time."""
    if gram is not None and not gram.exponent:
        return math.sqrt(float(gram.stack.diagonal(dim1=-2, dim2=-1).sum()))
    return math.sqrt(
        sum(float(block.to(torch.float64, copy=True).square_().sum()) for block in weight.split(BLOCK_ROWS))
    )


def least_change(a: Spectrum, b: Spectrum) -> float:
    """Return the least ``||B - A||_F / ||A||_F`` between matrices with these spectra; NaN if A is zero.

    Mirsky: no two matrices are closer than their ordered singular values are.
    """
    first, second = np.sqrt(a.eigenvalues), np.sqrt(b.eigenvalues)
    return ratio(float(np.linalg.norm(second - first)), float(np.linalg.norm(first)))


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``, NaN if the whole is zero."""
    return part / whole if whole else math.nan
