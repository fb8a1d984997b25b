"""Compare two analyses: what their spectra and fits say without the weights."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from htsr.audit.about import OF_CHANGE
from htsr.audit.analysis import DEFAULTS, Analysis, analyze
from htsr.audit.files_read import CHANGED
from htsr.audit.layer import LayerAnalysis
from htsr.audit.row import Row, comparison_row, finished
from htsr.comparison.kinds import Kind
from htsr.comparison.layer import LayerComparison, least_change
from htsr.comparison.retraining import score_of_change
from htsr.errors import InputError
from htsr.tails import PowerLawFit
from htsr.weights.inventory import Inventory, Layer, Skipped
from htsr.weights.source import is_path

NO_WEIGHTS = "an analysis keeps spectra, not weights"
# Options of ``analyze`` that change the rows, so that two analyses must agree in them.
SAME = ("convention", "xmin", "conv", "per_head", "state", "null")
# Cells that are known of a change whose weights are not at hand.
OF_SHAPE = ("name", "longname", "layer_type", "dtype", "N", "M", "Q", "rf", "num_evals", "tied_to")


def as_analysis(source: object) -> Analysis | None:
    """Return the analysis that a source is or that a .htsr file holds, None for every other source."""
    if isinstance(source, Analysis):
        return source
    if not is_path(source) or Path(source).suffix.lower() != ".htsr" or Path(source).is_dir():
        return None
    from htsr.comparison.saved import read_result

    result = read_result(Path(source))
    if not isinstance(result, Analysis):
        raise InputError(f"{source}: expected an analysis to compare, got a comparison")
    return result


def analyze_alike(source: Any, other: Analysis, **options: Any) -> Analysis:
    """Return the analysis of a source with those settings of another analysis that change the rows."""
    settings = other.about.settings
    return analyze(source, **options, **{name: settings[name] for name in SAME if name in settings})


def check_asked(kept: Analysis | None, **asked: Any) -> None:
    """Refuse an option of ``compare`` that an analysis was made without: it keeps no weights to be analysed again."""
    assert kept is not None
    for name, value in asked.items():
        default = DEFAULTS[name]
        made = kept.about.settings.get(name, default)
        if value != default and value != made:
            raise ValueError(
                f"expected {name}={made!r}, with which the analysis of {kept.source} was made, got {value!r}"
            )


def check_alike(a: Analysis, b: Analysis) -> None:
    """Refuse two analyses whose rows do not mean the same."""
    for name in SAME:
        first, second = (side.about.settings.get(name, "the default") for side in (a, b))
        if first != second:
            raise InputError(
                f"expected two analyses with the same settings, got {name}={first} in A and {name}={second} in B; analyse one of "
                "them again"
            )


def inventory_of(analysis: Analysis, twin: Analysis) -> Inventory:
    """Return the layers of an analysis, which cannot be loaded; one without a spectrum has the shape of its ``twin``."""
    layers = []
    for layer in analysis:
        row = layer.row
        shape = _shape(layer) or (layer.name in twin and _shape(twin[layer.name])) or (row["N"], row["M"])
        tied_to = row["tied_to"] or None
        layers.append(
            Layer(layer.name, row["longname"], row["layer_type"], shape, _never_loaded, tied_to, row["dtype"])
        )
    skipped = [
        Skipped(name, tuple(map(int, shape.split(" x "))) if shape else (), reason)
        for name, shape, reason in analysis.skipped.to_numpy()
    ]
    return Inventory(analysis.source, layers, skipped, analysis.state)


def compare_spectra(a: LayerAnalysis, b: LayerAnalysis) -> LayerComparison:
    """Return what the spectra of a layer in two versions say of its change."""
    cells = {name: a.row[name] for name in OF_SHAPE} | {"status": "failed", "reason": NO_WEIGHTS}
    delta = LayerAnalysis(a.name, finished(cells), None, PowerLawFit.failed(NO_WEIGHTS), None)
    measured: dict[str, object] = {"subspace_rank": 0}
    if a.spectrum is None or b.spectrum is None:
        reasons = [f"{side}: {of.fit.reason}" for side, of in (("A", a), ("B", b)) if of.spectrum is None]
        measured |= {"status": "failed", "reason": "; ".join(reasons)}
    else:
        same = np.array_equal(a.spectrum.eigenvalues, b.spectrum.eigenvalues)
        change = b.fit.alpha - a.fit.alpha
        measured |= {
            "status": "unchanged" if same else "changed",
            "reason": "the spectrum is the same" if same else NO_WEIGHTS,
            "alpha_change": None if math.isnan(change) else change,
            "alpha_change_score": score_of_change(a.fit.alpha, b.fit.alpha),
            "least_relative_change": least_change(a.spectrum, b.spectrum),
        }
    row = comparison_row(a.row, b.row, delta.row, measured) | {"tied_to": a.row["tied_to"]}
    return LayerComparison(row, a, b, delta, np.empty(0), np.empty(0))


def kind_of_spectra(a: Analysis, b: Analysis, rows: Sequence[Row]) -> Kind:
    """Return the kind of change between two analyses, whose rows these are: nothing, if both read the same files."""
    own = [row for row in rows if not row["tied_to"]]
    if any(row["status"] == "changed" for row in own):
        return Kind("undecided", f"Only spectra were compared, since {NO_WEIGHTS}.")
    files = _digests(a)
    if files and files == _digests(b):
        number = "the same file" if len(files) == 1 else f"the same {len(files)} files"
        return Kind("identical", f"Both sides read {number}: the digests of all bytes are equal.")
    same = sum(row["status"] == "unchanged" for row in own)
    if not same:
        return Kind("undecided", "No matrix could be compared.")
    which = (
        "The only spectrum is"
        if len(own) == 1
        else f"{'All' if same == len(own) else f'{same} of'} {len(own)} spectra are"
    )
    return Kind("undecided", f"{which} the same, but the weights need not be: {NO_WEIGHTS}.")


def _digests(analysis: Analysis) -> list[str]:
    """Return the digests of the files that were read for an analysis, sorted; none if it does not know all of them."""
    found = sorted(analysis.about.hashed().files.values())
    return [] if CHANGED in found else found


def of_layers(analysis: Analysis, layers: dict[str, LayerAnalysis]) -> Analysis:
    """Return an analysis of some layers only, with nothing skipped."""
    return Analysis(analysis.about, analysis.skipped.iloc[:0], layers)


def change_of(a: Analysis, b: Analysis, layers: dict[str, LayerAnalysis]) -> Analysis:
    """Return the analysis of the changes."""
    about = replace(a.about, source=f"{b.source} - {a.source}", metadata={}, settings=OF_CHANGE, files={}, _stamps={})
    return Analysis(about, a.skipped.iloc[:0], layers)


def _shape(layer: LayerAnalysis) -> tuple[int, ...] | None:
    """Return the shape of the weight, where the analysis knows it."""
    return None if layer.spectrum is None else layer.spectrum.shape


def _never_loaded() -> torch.Tensor:
    raise AssertionError(NO_WEIGHTS)
