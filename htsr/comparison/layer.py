"""One layer in two versions: its row of a comparison. The one place where such a row is put together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from htsr.audit.columns import COLUMNS, Column
from htsr.audit.layer import LayerAnalysis, Settings, analyze_layer
from htsr.comparison.distances import overlap, similarity
from htsr.spectra.spectrum import BLOCK_ROWS, esd, rounding_edge
from htsr.weights import Layer

# Above this share of its norm, what changed may as well be the rounding of the stored weights.
MOSTLY_ROUNDING = 0.5
# Columns of the analyses of A and B that stand in a row, and those of the analysis of the change B - A.
OF_EACH = ("alpha", "stable_rank", "phase")
OF_DELTA = (
    "alpha", "sigma", "D", "num_pl_spikes", "null_alpha", "null_p_value", "num_spikes", "stable_rank", "hard_rank",
    "phase",
)  # fmt: skip

_ANALYSED = {column.name: column for column in COLUMNS}
COMPARED = (
    *(_ANALYSED[name] for name in ("name", "layer_type", "N", "M", "rf")),
    Column("relative_change", "float64", "Frobenius norm of the change B - A / Frobenius norm of A"),
    Column("frobenius", "float64", "Frobenius norm of the change"),
    Column("spectral", "float64", "largest singular value of the change (of one slice, for a convolution)"),
    Column("relative_spectral", "float64", "spectral / the largest singular value of A"),
    Column("rounding", "float64", "share of frobenius that the rounding of the stored weights can make up"),
    Column("alpha_change", "float64", "alpha_b - alpha_a"),
    *(_ANALYSED[name]._replace(name=f"{name}_{side}", meaning=f"{name} of {side.upper()}")
      for side in "ab" for name in OF_EACH if name in _ANALYSED),
    *(_ANALYSED[name]._replace(name=f"{name}_delta", meaning=f"of the change: {_ANALYSED[name].meaning}")
      for name in OF_DELTA if name in _ANALYSED),
    Column("cka", "float64", "linear CKA of the rows, columns centred: 1 is the same up to scale and rotation"),
    Column("cka_uncentred", "float64", "the same without centring"),
    Column("subspace_rank", "int64", "dimension k of the leading singular subspaces that are compared"),
    Column("overlap_out", "float64", "mean squared cosine of the principal angles on the output side; chance is k / out"),
    Column("overlap_in", "float64", "the same on the input side; chance is k / in"),
    Column("angle_out", "float64", "largest principal angle on the output side, degrees"),
    Column("angle_in", "float64", "the same on the input side"),
    Column("status", "str", "changed, unchanged (bit by bit), or failed"),
    Column("reason", "str", "why it failed, or what to be wary of"),
    _ANALYSED["tied_to"],
)  # fmt: skip


@dataclass(frozen=True)
class LayerComparison:
    """One layer of a comparison.

    Attributes:
        row: Its row of ``Comparison.details``, as a dict.
        a: The analysis of the layer in A.
        b: The same in B.
        delta: The same of the change, B - A.
        angles_out: Principal angles between the leading subspaces of A and B on the output side, radians, descending.
        angles_in: The same on the input side.
    """

    row: dict[str, object]
    a: LayerAnalysis
    b: LayerAnalysis
    delta: LayerAnalysis
    angles_out: np.ndarray
    angles_in: np.ndarray

    @property
    def name(self) -> str:
        """Name of the layer."""
        return str(self.row["name"])

    def repeated(self, layer: Layer) -> "LayerComparison":
        """The same numbers for a layer tied to this one."""
        own = {"name": layer.name, "layer_type": layer.layer_type, "tied_to": layer.tied_to}
        a, b, delta = (
            replace(side, name=layer.name, row=side.row | own | {"longname": layer.longname})
            for side in (self.a, self.b, self.delta)
        )
        return replace(self, row=self.row | own, a=a, b=b, delta=delta)

    def __repr__(self) -> str:
        return f"LayerComparison({self.name!r}, {self.row['status']}, A: {self.a.fit}, B: {self.b.fit}, change: {self.delta.fit})"


def compare_layer(layer_a: Layer, layer_b: Layer, rank: int, settings: Settings) -> LayerComparison:
    """Compare two versions of a layer.

    Args:
        layer_a: The layer in A.
        layer_b: The same in B, of the same shape.
        rank: Dimension of the leading subspaces, as in ``compare``.
        settings: How A, B and the change are analysed.

    Returns:
        The comparison; where a weight cannot be read or used, failed with the reason.
    """
    try:
        A, B = (_on_a_device_with_float64(layer.load()) for layer in (layer_a, layer_b))
    except (ValueError, OSError, RuntimeError) as err:  # what readers raise
        return _not_loaded(layer_a, layer_b, str(err), settings)
    B = B.to(A.device)
    same = A.dtype == B.dtype and torch.equal(A, B)
    wide = torch.float64 if torch.float64 in (A.dtype, B.dtype) else torch.float32
    delta = B.to(wide) - A.to(wide)
    N, M = max(A.shape[:2]), min(A.shape[:2])
    noise = sum(rounding_edge(torch.finfo(W.dtype).eps, _norm(W) ** 2 / W.numel(), N, M) for W in (A, B))

    of_a = analyze_layer(replace(layer_a, load=lambda: A), settings)
    of_b = of_a if same else analyze_layer(replace(layer_b, load=lambda: B), settings)
    of_delta = analyze_layer(replace(layer_a, load=lambda: delta), settings, floor=noise)
    row = _row(of_a, of_b, of_delta) | {"status": "unchanged" if same else "changed"}
    unusable = [f"{side}: {of.fit.reason}" for side, of in (("A", of_a), ("B", of_b)) if of.spectrum is None]
    if unusable or of_delta.spectrum is None:
        row |= {"status": "failed", "reason": "; ".join(unusable) or f"the change: {of_delta.fit.reason}"}
        return LayerComparison(row, of_a, of_b, of_delta, np.empty(0), np.empty(0))
    assert of_a.spectrum is not None

    change, largest = _norm(delta), of_delta.spectrum.eigenvalues[-1] or esd(delta)[-1]
    alike = similarity(A, B, rank)
    row |= {
        "relative_change": ratio(change, _norm(A)) if change == 0 or _norm(A) > 0 else math.inf,
        "frobenius": change,
        "spectral": math.sqrt(largest),
        "relative_spectral": ratio(math.sqrt(largest), math.sqrt(of_a.spectrum.eigenvalues[-1])),
        "rounding": min(1.0, ratio(math.sqrt(noise * delta.numel()) / (math.sqrt(N) + math.sqrt(M)), change)),
        "alpha_change": of_b.fit.alpha - of_a.fit.alpha,
        "cka": alike.cka,
        "cka_uncentred": alike.cka_uncentred,
        "subspace_rank": len(alike.angles_out),
        "overlap_out": overlap(alike.angles_out),
        "overlap_in": overlap(alike.angles_in),
        "angle_out": math.degrees(max(alike.angles_out, default=math.nan)),
        "angle_in": math.degrees(max(alike.angles_in, default=math.nan)),
    }
    if not same:
        row["reason"] = _cautions(row, of_a, of_b, of_delta, A.dtype, B.dtype)
    return LayerComparison(row, of_a, of_b, of_delta, alike.angles_out, alike.angles_in)


def _row(of_a: LayerAnalysis, of_b: LayerAnalysis, of_delta: LayerAnalysis) -> dict[str, object]:
    """What a row takes from the three analyses."""
    row = {key: of_a.row[key] for key in ("name", "layer_type", "N", "M", "rf")}
    row |= {"reason": "", "subspace_rank": 0, "tied_to": ""}
    for side, of, names in (("a", of_a, OF_EACH), ("b", of_b, OF_EACH), ("delta", of_delta, OF_DELTA)):
        row |= {f"{name}_{side}": of.row.get(name) for name in names}
    return row


def _not_loaded(layer_a: Layer, layer_b: Layer, reason: str, settings: Settings) -> LayerComparison:
    """The row of a pair of which one could not be read."""

    def refuse() -> torch.Tensor:
        raise ValueError(reason)

    of_a, of_b = (analyze_layer(replace(layer, load=refuse), settings) for layer in (layer_a, layer_b))
    row = _row(of_a, of_b, of_a) | {"status": "failed", "reason": reason}
    return LayerComparison(row, of_a, of_b, of_a, np.empty(0), np.empty(0))


def _cautions(
    row: dict[str, object],
    of_a: LayerAnalysis,
    of_b: LayerAnalysis,
    of_delta: LayerAnalysis,
    dtype_a: torch.dtype,
    dtype_b: torch.dtype,
) -> str:
    """What to be wary of in one row."""
    found = [f"{side}: {of.fit.reason}" for side, of in (("A", of_a), ("B", of_b)) if of.fit.status == "failed"]
    if dtype_a != dtype_b:
        found.append(f"stored as {dtype_a} in A, as {dtype_b} in B".replace("torch.", ""))
    if row["rounding"] > MOSTLY_ROUNDING:  # type: ignore[operator]
        found.append("most of the change may be rounding")
    elif of_delta.fit.reason:
        found.append(f"the change: {of_delta.fit.reason}")
    elif of_delta.row.get("phase") == "random-like":
        found.append("the change looks like noise, whatever its alpha")
    return "; ".join(found)


def _on_a_device_with_float64(weight: torch.Tensor) -> torch.Tensor:
    return weight.cpu() if weight.device.type == "mps" else weight


def _norm(weight: torch.Tensor) -> float:
    """Frobenius norm in float64, a block of rows at a time."""
    return math.sqrt(sum(float(block.to(torch.float64).square().sum()) for block in weight.split(BLOCK_ROWS)))


def ratio(part: float, whole: float) -> float:
    """A share.

    Args:
        part: The part.
        whole: The whole.

    Returns:
        part / whole, NaN of nothing.
    """
    return part / whole if whole else math.nan


def note_of_change(row: Mapping[str, object]) -> str:
    """What a person should see beside a row."""
    if row["tied_to"]:
        return f"tied to {row['tied_to']}"
    if row["status"] == "failed":
        return f"failed: {row['reason']}"
    return str(row["reason"] or ("unchanged" if row["status"] == "unchanged" else ""))
