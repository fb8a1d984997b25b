"""The page of a comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from htsr.comparison.verdict import alphas_in_words
from htsr.report.page.analysis import CARDS, foot, layers, number_in_words, skipped, verdict
from htsr.report.page.depth import depth_of
from htsr.report.page.pictures import picture_of_change
from htsr.report.page.table import MAX_TEXT, table_of
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.comparison.compare import Comparison

# The columns that the table shows at first, as far as there is room, beside the name and its note.
SHOWN = (
    "relative_change", "least_relative_change", "change", "alpha_a", "alpha_b", "alpha_of_delta", "null_p_value_of_delta",
    "hard_rank_of_delta", "stable_rank_of_delta", "cka", "overlap_out", "overlap_in", "phase_of_delta", "N", "M",
)  # fmt: skip


def comparison_data(comparison: "Comparison") -> dict[str, Any]:
    """Return what the page of a comparison shows, as JSON knows it."""
    details = comparison.details
    summary = comparison.summary()
    metric = "relative_change" if details["relative_change"].notna().any() else "least_relative_change"
    size = details[metric].astype("float64").fillna(-1)
    order = list(size.sort_values(ascending=False, kind="stable").index)
    unmatched = [
        [f"{row.name} ({row.source} only)", row.shape, f"without a partner: {row.reason}"]
        for row in comparison.unmatched.itertuples(index=False)
    ]
    return {
        "kind": "comparison",
        "title": visible(f"{Path(comparison.b.source).name} against {Path(comparison.a.source).name}", MAX_TEXT),
        "lead": visible(alphas_in_words(summary), MAX_TEXT),
        "facts": [
            number_in_words(summary["num_layers"], "layer in both", "layers in both"),
            f"{summary['num_unchanged']} unchanged",
            f"{summary['num_unmatched']} without a partner",
            number_in_words(len(comparison.skipped), "tensor skipped", "tensors skipped"),
        ],
        "verdict": verdict(comparison.sentences()),
        "metric": metric,
        "pictures": [picture_of_change(layer) for layer in comparison],
        "directions": [visible(line, MAX_TEXT) for line in comparison.tokens_lines()],
        "skipped": [*([visible(text, MAX_TEXT) for text in row] for row in unmatched), *skipped(comparison.skipped)],
        "foot": [*foot(comparison.a.about, " of A"), *foot(comparison.b.about, " of B")],
        "depth": depth_of(details, metric),
        **layers(details, comparison.ranked_findings()),
        "cards": [row for row in order if size[row] > 0 and not details["tied_to"][row]][:CARDS],
        "sort": metric,
        **table_of(details, comparison.columns, SHOWN),
    }
