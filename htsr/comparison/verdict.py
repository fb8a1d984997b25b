"""The verdict on a comparison in three sentences: what kind of change, how large and where, and what was left out."""

from typing import TYPE_CHECKING

from htsr.audit.verdict import MAX_NAMES, named
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.comparison.compare import Comparison


def verdict_of_comparison(comparison: "Comparison") -> list[str]:
    """Return at most three sentences on a comparison."""
    sentences = (
        f"{comparison.kind}: {comparison.kind_evidence}",
        _how_large(comparison),
        _what_is_missing(comparison),
    )
    return [sentence for sentence in sentences if sentence]


def _how_large(comparison: "Comparison") -> str:
    """Return how much of the weights changed, and where most of it; nothing if nothing did."""
    most = comparison.most_changed(MAX_NAMES)
    most = most[most["relative_change"] > 0]
    if not len(most):
        return ""
    layers = [f"{visible(row['name'])} ({row['relative_change']:.2g})" for row in most.to_dict("records")]
    where = f", most in {', '.join(layers)}" if len(comparison) > 1 else ""
    return f"The change is {comparison.summary()['relative_change']:.2g} of the weights by norm{where}."


def _what_is_missing(comparison: "Comparison") -> str:
    """Return which matrices could not be compared, and how many have no partner."""
    failed = [finding for finding in comparison.ranked_findings() if finding.kind == "not-compared"]
    parts = [f"{len(failed)} could not be compared: {named(failed)}"] if failed else []
    if count := len(comparison.unmatched):
        parts.append(f"{count} {'has' if count == 1 else 'have'} no partner of the same name and shape")
    return f"{'; '.join(parts)}." if parts else ""
