"""An analysis as a document and arrays, and back: the same cells, spectra and fits, without fitting anything anew."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from htsr.audit.about import About
from htsr.audit.analysis import Analysis
from htsr.audit.columns import BY_NAME, COLUMNS, Column
from htsr.audit.layer import LayerAnalysis
from htsr.audit.row import Row, finished
from htsr.audit.table import SKIPPED, text_frame
from htsr.audit.tokens import tokens_document, with_kept
from htsr.bulk import MarchenkoPasturFit
from htsr.errors import InputError
from htsr.spectra.spectrum import Spectrum
from htsr.tails import PowerLawFit
from htsr.tails.xmin_rules import TailRule
from htsr.tails.xmin_scan import KS

# The version of documents that this htsr writes, and the oldest that it reads.
SCHEMA, OLDEST = 1, 1
# How a document spells what JSON does not have.
INFINITE = ("inf", "-inf")

Document = dict[str, Any]
Arrays = dict[str, np.ndarray]

# The fields of ``About`` that a document holds, with their types.
ABOUT: Mapping[str, type] = {
    "source": str, "state": str, "metadata": dict, "convention": str, "num_params_analyzed": int, "num_params_skipped": int,
    "settings": dict, "versions": dict, "time": str, "files": dict, "command": str,
}  # fmt: skip
FIT = tuple(field.name for field in fields(PowerLawFit) if field.name not in ("values", "_rule"))
BULK = tuple(field.name for field in fields(MarchenkoPasturFit) if field.name != "spike_strengths")


def analysis_document(analysis: Analysis) -> tuple[Document, Arrays]:
    """Return all that an analysis knows as JSON knows it, and its arrays, those of all layers one behind the other."""
    about = asdict(replace(analysis.about.hashed(), _stamps={}))
    del about["_stamps"]
    arrays = {
        "eigenvalues": joined(layer.spectrum.eigenvalues for layer in analysis if layer.spectrum is not None),
        "shuffled": joined(layer.shuffled.eigenvalues for layer in analysis if layer.shuffled is not None),
        "spike_strengths": joined(layer.bulk.spike_strengths for layer in analysis if layer.bulk is not None),
    }
    layers = [_layer_document(layer) for layer in analysis]
    tokens = tokens_document({name: layer._directions for name, layer in analysis.items()})
    return {"about": about, "skipped": analysis.skipped.to_numpy().tolist(), "layers": layers, **tokens}, arrays


def analysis_from(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Analysis:
    """Return the analysis that ``analysis_document`` took apart; raise KeyError, TypeError or ValueError if it cannot be one."""
    about_document = {"command": "", **document["about"]}  # the first results had no command
    about = About(**{name: _about_field(name, about_document[name]) for name in ABOUT})
    cuts = {name: Cut(array) for name, array in arrays.items()}
    xmin = about.settings.get("xmin", "ks")
    layers = [_layer_from(layer, cuts, TailRule(xmin, KS())) for layer in document["layers"]]
    for name, cut in cuts.items():
        cut.check_used(name)
    results = with_kept({layer.name: layer for layer in layers}, document)
    skipped = text_frame([(str(a), str(b), str(c)) for a, b, c in document["skipped"]], SKIPPED)
    return Analysis(about, skipped, results)


def _about_field(name: str, value: object) -> Any:
    """Return a field of ``About``, whose type must be the field's."""
    if not isinstance(value, ABOUT[name]) or isinstance(value, bool):
        raise TypeError(f"expected {ABOUT[name].__name__} for {name}, got {value!r:.50}")
    texts = value if isinstance(value, dict) and name != "settings" else {}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(f"expected texts in {name}")
    return value


def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return arrays one behind the other."""
    return np.concatenate([np.empty(0), *arrays])


def _layer_document(layer: LayerAnalysis) -> Document:
    """Return a layer without its arrays, but with their lengths."""
    document: Document = {"row": known(layer.row), "fit": known({name: getattr(layer.fit, name) for name in FIT})}
    if layer.spectrum is not None:
        document |= {"shape": list(layer.spectrum.shape), "num_eigenvalues": len(layer.spectrum)}
        document["num_values"] = len(layer.fit.values)
    if layer.shuffled is not None:
        document |= {"shuffled_shape": list(layer.shuffled.shape), "num_shuffled": len(layer.shuffled)}
    if layer.bulk is not None:
        document["bulk"] = known({name: getattr(layer.bulk, name) for name in BULK})
        document["num_strengths"] = len(layer.bulk.spike_strengths)
    return document


def _layer_from(document: Mapping[str, Any], cuts: "Mapping[str, Cut]", rule: TailRule) -> LayerAnalysis:
    """Return the layer that ``_layer_document`` took apart."""
    row = row_from(document["row"])
    spectrum = shuffled = bulk = None
    values = np.empty(0)
    if "shape" in document:
        spectrum = Spectrum(cuts["eigenvalues"].next(document["num_eigenvalues"]), tuple(document["shape"]))
        values = spectrum.eigenvalues[len(spectrum) - document["num_values"] :]
    if "shuffled_shape" in document:
        shuffled = Spectrum(cuts["shuffled"].next(document["num_shuffled"]), tuple(document["shuffled_shape"]))
    if "bulk" in document:
        strengths = cuts["spike_strengths"].next(document["num_strengths"])
        bulk = MarchenkoPasturFit(**_numbers(document["bulk"], BULK), spike_strengths=strengths)
    fit = PowerLawFit(**_numbers(document["fit"], FIT), values=values, _rule=rule)
    if fit.status not in ("success", "failed") or not 0 <= fit.n_tail <= len(values):
        raise ValueError(f"expected a fit to at most {len(values)} values, got {fit}")
    return LayerAnalysis(str(row["name"]), row, spectrum, fit, bulk, shuffled)


def row_from(cells: Mapping[str, Any], columns: Sequence[Column] = COLUMNS) -> Row:
    """Return a finished row; a column that this htsr does not know, a newer one does."""
    names = {column.name for column in columns}
    return finished({name: _cell(name, value) for name, value in cells.items() if name in names}, columns)


def _cell(name: str, value: object) -> object:
    """Return a cell, whose type must be that of its column."""
    is_text = BY_NAME[name].dtype == "str"
    if not is_text and value in INFINITE:
        return float(value)
    if not isinstance(value, str if is_text else int | float) or isinstance(value, bool):
        raise TypeError(f"expected {BY_NAME[name].dtype} for {name}, got {value!r:.50}")
    return value


def known(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not NaN, as Python's own types; infinity, which JSON does not have, as a text."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in numbers.items()}
    known = {name: value for name, value in plain.items() if value == value}
    return {name: str(value) if value in (math.inf, -math.inf) else value for name, value in known.items()}


def _numbers(known: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the numbers by name, NaN for those that ``known`` left out."""
    found = {name: known.get(name, math.nan) for name in names}
    plain = {name: float(value) if value in INFINITE else value for name, value in found.items()}
    for name, value in plain.items():
        if not isinstance(value, str if name in ("status", "reason") else int | float):
            raise TypeError(f"expected a number or a text for {name}, got {value!r:.50}")
    return plain


class Cut:
    """An array from which pieces are cut, one behind the other."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self._used = array, 0

    def next(self, length: int) -> np.ndarray:
        """Return the next piece; raise ValueError if there is not so much left."""
        piece = self._array[self._used : self._used + length]
        if not isinstance(length, int) or length < 0 or len(piece) != length:
            raise ValueError(f"expected {length!r} more numbers, there are {len(piece)}")
        self._used += length
        return piece

    def check_used(self, name: str) -> None:
        """Raise InputError if something is left."""
        if self._used != len(self._array):
            raise InputError(f"{len(self._array) - self._used} numbers of {name} belong to no layer")
