"""A comparison as a document and arrays, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from htsr.audit.columns import COMPARISON_COLUMNS
from htsr.audit.saved import Arrays, Cut, Document, analysis_document, analysis_from, joined, known, row_from
from htsr.audit.table import text_frame
from htsr.comparison.compare import ONE_SIDED, Comparison
from htsr.comparison.layer import LayerComparison

SIDES = ("a", "b", "delta")
ANGLES = ("angles_out", "angles_in")


def comparison_document(comparison: Comparison) -> tuple[Document, Arrays]:
    """Return all that a comparison knows as JSON knows it, and its arrays."""
    document: Document = {
        "kind": comparison.kind,
        "kind_evidence": comparison.kind_evidence,
        "unmatched": comparison.unmatched.to_numpy().tolist(),
        "skipped": comparison.skipped.to_numpy().tolist(),
        "rows": [known(layer.row) for layer in comparison],
        "num_angles": [[len(layer.angles_out), len(layer.angles_in)] for layer in comparison],
    }
    arrays = {name: joined(getattr(layer, name) for layer in comparison) for name in ANGLES}
    for side in SIDES:
        document[side], of_side = analysis_document(getattr(comparison, side))
        arrays |= {f"{side}_{name}": array for name, array in of_side.items()}
    return document, arrays


def comparison_from(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Comparison:
    """Return the comparison that ``comparison_document`` took apart; as ``analysis_from``."""
    a, b, delta = (
        analysis_from(
            document[side],
            {name.removeprefix(f"{side}_"): array for name, array in arrays.items() if name.startswith(f"{side}_")},
        )
        for side in SIDES
    )
    angles = [Cut(arrays[name]) for name in ANGLES]
    results = {}
    for cells, lengths in zip(document["rows"], document["num_angles"], strict=True):
        row = row_from(cells, COMPARISON_COLUMNS)
        name = str(row["name"])
        out, into = (cut.next(length) for cut, length in zip(angles, lengths, strict=True))
        results[name] = LayerComparison(row, a[name], b[name], delta[name], out, into)
    unmatched, skipped = (
        text_frame([[str(cell) for cell in row] for row in document[name]], ONE_SIDED)
        for name in ("unmatched", "skipped")
    )
    kind, evidence = str(document["kind"]), str(document["kind_evidence"])
    return Comparison(a, b, delta, results, unmatched=unmatched, skipped=skipped, kind=kind, kind_evidence=evidence)
