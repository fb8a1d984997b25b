"""What a person should look at in the change of a layer."""

from collections.abc import Mapping

from htsr.audit.findings import Finding
from htsr.audit.findings import Kind as FindingKind
from htsr.audit.row import Row
from htsr.comparison.kinds import Signature

# If the rounding of the stored weights can account for more than this share of the change, row and finding say so.
MOSTLY_ROUNDING = 0.5

# Every kind, the worst first: the order of a comparison's findings. None of the notes is a fault.
KINDS: Mapping[str, FindingKind] = {
    "not-compared": FindingKind("problem", "N"),
    "replaced": FindingKind("caution", "relative_change"),
    "reordered": FindingKind("caution", "relative_change"),
    "rescaled": FindingKind("note", "relative_change"),
    "pruned": FindingKind("note", "relative_change"),
    "quantised": FindingKind("note", "relative_change"),
    "direction-removed": FindingKind("note", "relative_change"),
    "low-rank": FindingKind("note", "hard_rank_of_delta", largest_first=False),
    "change-of-noise": FindingKind("note", "relative_change"),
    "rounding": FindingKind("note", "relative_change"),
}


def findings_of_change(row: Row, signature: Signature | None) -> list[Finding]:
    """Return what stands out in the change of a layer: at most one finding, the one that says most."""
    if row["status"] == "failed" or signature is None:
        return [_finding(row, "not-compared", f"Not compared: {row['reason']}.", "N", "M")] * (
            row["status"] == "failed"
        )
    kind, text, *columns = _said(row, signature)
    return [_finding(row, kind, text, "relative_change", *columns)] if kind else []


def _finding(row: Row, kind: str, text: str, *columns: str) -> Finding:
    return Finding(row["name"], kind, KINDS[kind].severity, text, {name: row[name] for name in columns})


def _said(row: Row, s: Signature) -> tuple[str, ...]:
    """Return the kind of a layer's finding, its sentence and the columns behind it; empty texts if there is none."""
    if s.difference.kind == "equal":
        return "", ""
    if s.difference.kind == "rounded":
        return "rounding", f"A and B differ by no more than rounding to {s.difference.rounding}.", "rounding"
    if s.mask:
        which = "A is B" if s.mask.in_a else "B is A"
        return "pruned", f"{which} with {s.mask.share:.1%} of the values set to zero, and the others kept."
    if s.scaling:
        return "rescaled", f"B is A times {s.scaling.by}, from {s.scaling.low:.4g} to {s.scaling.high:.4g}."
    if s.grid or s.difference.kind == "quantised":
        which = "A" if s.grid and s.grid.in_a else "B"
        return "quantised", f"{which} lies on a grid, and its values keep the order that they have in the other one."
    if s.low_rank and s.low_rank.projections:
        lost = s.low_rank.projections[0]
        side = "outputs" if lost.side == "out" else "inputs"
        number = "a direction" if s.low_rank.rank == 1 else f"{s.low_rank.rank} directions"
        return "direction-removed", f"B lost {number} of its {side}, by {lost.share:.0%}.", "hard_rank_of_delta"
    if s.low_rank:
        text = f"The change has exactly rank {s.low_rank.rank}, up to rounding, of {s.low_rank.of} possible."
        return "low-rank", text, "hard_rank_of_delta"
    if s.is_reordered:
        return "reordered", "Other values and the same singular values or leading directions: units in another order?"
    if s.by_chance:
        text = f"The values of A and B do not correlate ({s.difference.correlation:.2g}): the layer was replaced."
        return "replaced", text, "cka", "overlap_out", "overlap_in"
    if row["rounding"] > MOSTLY_ROUNDING:
        return (
            "rounding",
            f"Rounding of the stored weights can account for {row['rounding']:.0%} of the change.",
            "rounding",
        )
    if s.is_noise:
        return "change-of-noise", "The spectrum of the change is that of noise.", "num_spikes_of_delta"
    return "", ""
