"""Kept results: a comparison as a document and arrays, and back; and files that hold an analysis or a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htsr.audit.analysis import Analysis
from htsr.audit.columns import COMPARISON_COLUMNS
from htsr.audit.saved import (
    OLDEST,
    SCHEMA,
    Arrays,
    Cut,
    Document,
    analysis_document,
    analysis_from,
    joined,
    known,
    row_from,
)
from htsr.audit.table import text_frame
from htsr.audit.tokens import tokens_document, with_kept
from htsr.comparison.compare import Comparison
from htsr.comparison.layer import LayerComparison
from htsr.comparison.matching import ONE_SIDED
from htsr.errors import InputError
from htsr.files.archive import read_archive

SIDES = ("a", "b", "delta")
ANGLES = ("angles_out", "angles_in")


def read_result(path: Path) -> Analysis | Comparison:
    """Return the analysis or the comparison in a ``.htsr`` file."""
    document, arrays = read_archive(path)
    schema, kind = document.get("schema"), document.get("result")
    if not isinstance(schema, int) or kind not in ("analysis", "comparison"):
        raise InputError(f"{path}: expected a result that htsr saved, got a document without schema and result")
    if schema > SCHEMA:
        raise InputError(
            f"{path}: has schema {schema}, written by htsr {document.get('htsr')!s:.20}; this htsr reads {OLDEST} to {SCHEMA}: "
            "upgrade htsr"
        )
    if schema < OLDEST:
        raise InputError(f"{path}: has schema {schema}; this htsr reads {OLDEST} to {SCHEMA}")
    try:
        return analysis_from(document, arrays) if kind == "analysis" else comparison_from(document, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InputError(
            f"{path}: the {kind} in it does not fit together ({type(err).__name__}: {err}): it was changed after htsr saved it"
        ) from err


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
    document |= tokens_document({name: layer._directions for name, layer in comparison.items()})
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
    results = with_kept(results, document)
    unmatched, skipped = (
        text_frame([[str(cell) for cell in row] for row in document[name]], ONE_SIDED)
        for name in ("unmatched", "skipped")
    )
    kind, evidence = str(document["kind"]), str(document["kind_evidence"])
    return Comparison(a, b, delta, results, unmatched=unmatched, skipped=skipped, kind=kind, kind_evidence=evidence)
