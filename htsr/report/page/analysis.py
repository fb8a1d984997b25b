"""The page of an analysis."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.findings import Finding
from htsr.audit.summary import alpha_and_phases
from htsr.audit.table import notes
from htsr.plots.models.places import by_depth, places
from htsr.report.page.depth import depth_of
from htsr.report.page.pictures import picture_of_layer, points_for
from htsr.report.page.table import MAX_TEXT, table_of
from htsr.text import encodable, visible

if TYPE_CHECKING:
    from htsr.audit.about import About
    from htsr.audit.analysis import Analysis
    from htsr.audit.verdict import Sentence

# The columns that the table shows at first, as far as there is room, beside the name and its note.
SHOWN = (
    "alpha", "alpha_low", "alpha_high", "phase", "null_alpha", "null_p_value", "num_pl_spikes", "stable_rank", "num_spikes",
    "D", "N", "M", "rf", "goodness_of_fit", "alternative", "num_traps", "layer_type",
)  # fmt: skip
# How many of the worst layers have a card.
CARDS = 4


def analysis_data(analysis: "Analysis") -> dict[str, Any]:
    """Return what the page of an analysis shows, as JSON knows it."""
    details = analysis.details
    summary = analysis.summary()
    findings = analysis.ranked_findings()
    points = points_for(len(details))
    metric = "alpha" if details["alpha"].notna().any() else "stable_rank"
    name = Path(analysis.source).name if analysis.source else "weights"
    return {
        "kind": "analysis",
        "title": f"Weight spectra of {visible(name, MAX_TEXT)}",
        "lead": visible(alpha_and_phases(details, summary), MAX_TEXT),
        "facts": [
            number_in_words(summary["num_layers"], "matrix", "matrices"),
            f"{amount(summary['num_params'])} parameters",
            number_in_words(len(analysis.skipped), "tensor skipped", "tensors skipped"),
        ],
        "verdict": verdict(analysis.sentences()),
        "metric": metric,
        "pictures": [picture_of_layer(layer, points) for layer in analysis],
        "skipped": skipped(analysis.skipped),
        "directions": [visible(line, MAX_TEXT) for line in analysis.tokens_lines()],
        "foot": foot(analysis.about),
        "depth": depth_of(details, metric),
        **layers(details, findings),
        **table_of(details, analysis.columns, SHOWN),
    }


def layers(details: pd.DataFrame, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return where each layer stands, what is said of it, and which ones come first."""
    found = places(details["name"], details.get("layer_type"))
    number = {name: row for row, name in enumerate(details["name"])}
    worst = dict.fromkeys(encodable(finding.name) for finding in findings if finding.severity != "note")
    rest = dict.fromkeys(encodable(finding.name) for finding in findings)
    return {
        "places": {
            "block": [place.block for place in found],
            "label": [visible(place.label, MAX_TEXT) for place in found],
            "role": [place.role for place in found],
            "order": by_depth(found),
        },
        "notes": [visible(note, MAX_TEXT) for note in notes(details)],
        "tied": [bool(name) for name in details["tied_to"]],
        "findings": [
            {
                "row": number[encodable(finding.name)],
                "kind": finding.kind,
                "severity": finding.severity,
                "text": visible(finding.text, MAX_TEXT),
            }
            for finding in findings
        ],
        "cards": [number[name] for name in [*worst, *(name for name in rest if name not in worst)][:CARDS]],
        "explanations": dict(EXPLANATIONS),
        "meaning": _meaning(findings[0].kind) if findings else "",
    }


def _meaning(kind: str) -> str:
    """Return the first sentences of the explanation of a kind of findings; empty if it has none."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", EXPLANATIONS.get(kind, ""))
    return f"What “{kind}” means: {' '.join(sentences[:3])}" if sentences[0] else ""


def verdict(sentences: "Iterable[Sentence]") -> list[dict[str, Any]]:
    """Return the sentences of a verdict, each with the kinds of findings that it links to."""
    return [{"text": visible(sentence.text, MAX_TEXT), "kinds": list(sentence.kinds)} for sentence in sentences]


def skipped(table: pd.DataFrame) -> list[list[str]]:
    """Return name, shape and reason of the tensors that were not analysed."""
    return [
        [visible(text, MAX_TEXT) for text in row] for row in table[["name", "shape", "reason"]].itertuples(index=False)
    ]


def foot(about: "About", side: str = "") -> list[list[str]]:
    """Return what a page says of its own origin: labels and texts."""
    about = about.hashed()
    settings = _settings(about.settings)
    rows = [
        ("source", f"{about.state} of {about.source}" if about.state else about.source),
        (
            "settings",
            f"{settings}; convention {about.convention}" if settings else f"defaults; convention {about.convention}",
        ),
        ("command", about.command),
        ("metadata", _settings(about.metadata)),
        *((Path(path).name, f"BLAKE2b {digest}") for path, digest in about.files.items()),
        ("made", f"{about.time} with {', '.join(f'{name} {version}' for name, version in about.versions.items())}"),
    ]
    return [[f"{label}{side}", visible(text, MAX_TEXT)] for label, text in rows if text]


def amount(number: float) -> str:
    """Return a large number in words: ``22.7 M``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def number_in_words(number: float, one: str, more: str) -> str:
    """Return a number of things in words."""
    return f"{number:,.0f} {one if number == 1 else more}"


def _settings(settings: Mapping[str, Any]) -> str:
    """Return settings in words."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
