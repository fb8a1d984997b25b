"""The verdict on a comparison in three sentences: what kind of change, how large and where, and what was left out."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from htsr.audit.verdict import MAX_NAMES, Sentence, first_names, named
from htsr.comparison.figures import percent
from htsr.comparison.retraining import medians_in_words
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.comparison.compare import Comparison

# The layers that changed most are named if the first of them changed by so many times as much as the last.
APART = 1.1


def verdict_of_comparison(comparison: "Comparison") -> list[Sentence]:
    """Return at most three sentences on a comparison."""
    sentences = (
        Sentence(f"{comparison.kind}: {comparison.kind_evidence}"),
        Sentence(_how_large(comparison)),
        Sentence(_what_is_missing(comparison), ("not-compared",)),
    )
    return [sentence for sentence in sentences if sentence.text]


def alphas_in_words(summary: Mapping[str, float]) -> str:
    """Return the median alpha of A and of B in a line, and what their difference means; empty if one has none."""
    a, b = summary["alpha_a_median"], summary["alpha_b_median"]
    if math.isnan(a + b):
        return ""
    return ", ".join(filter(None, (f"alpha: median {a:.2f} in A, {b:.2f} in B", medians_in_words(a, b))))


def _how_large(comparison: "Comparison") -> str:
    """Return how much of the weights changed, and where most of it; nothing if nothing did."""
    most = comparison.most_changed(MAX_NAMES)
    most = most[most["relative_change"] > 0]
    if not len(most):
        return ""
    sizes = list(most["relative_change"])
    layers = [f"{visible(name)} ({percent(size)} %)" for name, size in zip(most["name"], sizes, strict=True)]
    tells = len(comparison) > 1 and (len(sizes) == 1 or sizes[0] >= APART * sizes[-1])
    where = f", most in {', '.join(layers)}" if tells else ""
    return f"The change is {percent(comparison.summary()['relative_change'])} % of the weights by norm{where}."


def _what_is_missing(comparison: "Comparison") -> str:
    """Return which matrices could not be compared, and which have no partner."""
    failed = [finding for finding in comparison.ranked_findings() if finding.kind == "not-compared"]
    parts = [f"{len(failed)} could not be compared: {named(failed)}"] if failed else []
    if count := len(comparison.unmatched):
        names = first_names(comparison.unmatched["name"])
        parts.append(f"{count} {'has' if count == 1 else 'have'} no partner of the same name and shape: {names}")
    return f"{'; '.join(parts)}." if parts else ""
