"""What stands out in the change of one layer, and the findings of a comparison."""

from collections.abc import Mapping

from htsr.audit.findings import Finding
from htsr.audit.findings import Kind as FindingKind
from htsr.audit.row import Row
from htsr.comparison.figures import factors_text, percent
from htsr.comparison.kinds import Signature

# If the rounding of the stored weights can account for more than this share of the change, row and finding say so.
MOSTLY_ROUNDING = 0.5

# Every kind, the worst first: the order of a comparison's findings. They are the values of the column ``change``, and none of the
# notes is a fault.
KINDS: Mapping[str, FindingKind] = {
    "not-compared": FindingKind("problem", "N"),
    "replaced": FindingKind("caution", "relative_change"),
    "reordered": FindingKind("caution", "relative_change"),
    "rescaled": FindingKind("note", "relative_change"),
    "pruned": FindingKind("note", "relative_change"),
    "quantised": FindingKind("note", "relative_change"),
    "direction-removed": FindingKind("note", "relative_change"),
    "truncated": FindingKind("note", "relative_change"),
    "low-rank": FindingKind("note", "hard_rank_of_delta", largest_first=False),
    "partial": FindingKind("note", "relative_change"),
    "noise": FindingKind("note", "relative_change"),
    "rounding": FindingKind("note", "relative_change"),
}
# The columns beside the size of the change that a finding rests on.
EVIDENCE = {
    "not-compared": ("N", "M"),
    "replaced": ("cka", "overlap_out", "overlap_in"),
    "reordered": ("cka", "overlap_out", "overlap_in"),
    "direction-removed": ("hard_rank_of_delta",),
    "low-rank": ("hard_rank_of_delta",),
    "noise": ("num_spikes_of_delta",),
    "rounding": ("rounding",),
}


def findings_of_change(row: Row) -> list[Finding]:
    """Return what stands out in a row of a comparison: one finding or none."""
    kind, text = row["change"], row["change_evidence"]
    if row["status"] == "failed":
        kind, text = "not-compared", f"Not compared: {row['reason']}."
    if kind not in KINDS:
        return []
    columns = ("relative_change", *EVIDENCE.get(kind, ()))
    evidence = {name: row[name] for name in columns if row[name] == row[name]}  # without those that are missing
    return [Finding(row["name"], kind, KINDS[kind].severity, text, evidence)]


def change_of_layer(s: Signature, rounding: float) -> tuple[str, str]:
    """Return the value of the column ``change`` and its evidence; ``rounding`` is the share that rounding can account for."""
    if s.difference.kind == "equal":
        return "equal", ""
    if s.difference.kind == "rounded":
        return "rounding", f"A and B differ by no more than rounding to {s.difference.rounding}."
    if s.mask:
        which = "A is B" if s.mask.in_a else "B is A"
        return "pruned", f"{which} with {percent(s.mask.share)} % of the values set to zero, and the others kept."
    if s.scaling:
        return "rescaled", f"B is A times {s.scaling.by}: {factors_text(s.scaling.low, s.scaling.high)}."
    if s.grid or s.difference.kind == "quantised":
        which = "A" if s.grid and s.grid.in_a else "B"
        return "quantised", f"{which} lies on a grid, and its values keep the order that they have in the other one."
    if s.truncation:
        which = "A is B" if s.truncation.in_a else "B is A"
        return (
            "truncated",
            f"{which} with its small singular values removed: of rank {s.truncation.of}, {s.truncation.rank} is left.",
        )
    if s.low_rank and s.low_rank.projections:
        return "direction-removed", f"B lost {s.low_rank.lost}."
    if s.low_rank:
        return (
            "low-rank",
            f"The change has exactly rank {s.low_rank.rank}, up to rounding, of {s.low_rank.of} possible.",
        )
    if s.lines and s.lines.reordered:
        return "reordered", f"B has the {s.lines.axis} of A in another order, value by value: {s.lines} moved."
    if s.is_reordered:
        return (
            "reordered",
            "B has other values and the same singular values or leading directions, as if units were reordered.",
        )
    if s.by_chance:
        return (
            "replaced",
            f"The values of A and B do not correlate ({s.difference.correlation:.2g}): the layer was replaced.",
        )
    if rounding > MOSTLY_ROUNDING:
        return "rounding", f"Rounding of the stored weights can account for {percent(rounding)} % of the change."
    if s.is_partial:
        return "partial", f"Only {s.lines} changed."
    if s.is_noise:
        return "noise", "The spectrum of the change is that of noise."
    return "", ""
