"""From rows to tables and texts for people."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pandas as pd

from htsr.audit.columns import BY_NAME, COLUMNS, Column
from htsr.audit.findings import Finding
from htsr.text import encodable, escaped, visible
from htsr.weights.inventory import Inventory

# Columns of a table of tensors that are not analysed, and of a table of findings.
SKIPPED = ("name", "shape", "reason")
FINDINGS = ("name", "kind", "severity", "finding", "evidence")


def details_frame(rows: Sequence[Mapping[str, object]], columns: Sequence[Column] = COLUMNS) -> pd.DataFrame:
    """Return rows as a table with every one of the columns, in order; what a row lacks is missing, never invented."""
    return pd.DataFrame({column.name: pd.array(_cells(rows, column), dtype=column.dtype) for column in columns})


def _cells(rows: Sequence[Mapping[str, object]], column: Column) -> list[object]:
    """Return the cells of one column."""
    values = [row.get(column.name, column.missing) for row in rows]
    return [encodable(value) if isinstance(value, str) else value for value in values]


def text_frame(rows: Iterable[Sequence[str]], columns: Sequence[str]) -> pd.DataFrame:
    """Return a table of texts, with its columns even if it has no row."""
    return pd.DataFrame([tuple(map(encodable, row)) for row in rows], columns=list(columns), dtype="str")


class WholeTexts(pd.DataFrame):
    """A table whose texts a notebook or a terminal shows whole, where pandas would cut them at 50 characters."""

    @property
    def _constructor(self) -> type["WholeTexts"]:
        return WholeTexts

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_colwidth", None):
            return super()._repr_html_()

    def __repr__(self) -> str:
        return self.to_string(max_colwidth=None, max_rows=60)


def findings_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """Return findings as a table, in their order."""
    rows = [(found.name, found.kind, found.severity, found.text, found.evidence_text) for found in findings]
    return WholeTexts(text_frame(rows, FINDINGS))


def skipped_frame(inventory: Inventory) -> pd.DataFrame:
    """Return name, shape and reason of every tensor that is not analysed."""
    return text_frame(((item.name, shape_text(item.shape), item.reason) for item in inventory.skipped), SKIPPED)


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for people: ``64 x 3 x 3``."""
    return " x ".join(map(str, shape))


def shortened(items: Sequence[object]) -> str:
    """Return the first five items and the last one, for a message."""
    shown = ", ".join(map(visible, items[:5]))
    return f"{shown}, ..., {visible(items[-1])}" if len(items) > 5 else shown


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a question that names up to three known names like ``name``, or an empty text if there is none."""
    near = get_close_matches(name, known, n=3, cutoff=0.5) or [other for other in known if name and name in other][:3]
    return f"did you mean {' or '.join(map(visible, near))}?" if near else ""


def rounded(details: pd.DataFrame, names: Iterable[str]) -> dict[str, list[str]]:
    """Return columns of a table as texts for people, by name."""
    return {name: [visible(BY_NAME[name].text(value)) for value in details[name]] for name in names}


def interval_texts(details: pd.DataFrame) -> list[str]:
    """Return the interval of alpha in each row for people, empty if there is none."""
    ends = zip(*rounded(details, ("alpha_low", "alpha_high")).values(), strict=True)
    return [f"{low} to {high}" if low else "" for low, high in ends]


def brief(details: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of an analysis that fit on a terminal, rounded, with a note beside each row."""
    resampled = details["alpha_low"].notna().any()
    names = ["alpha", "alpha_low", "alpha_high", "D", "goodness_of_fit"] if resampled else ["alpha", "sigma", "D"]
    texts = rounded(details, [*names, "num_pl_spikes", "num_spikes", "stable_rank"])
    sides = ["N", "M", "rf"] if (details["rf"] > 1).any() else ["N", "M"]
    table = details[["name", "layer_type", *sides]].assign(name=shown_names(details), **texts)
    table = table.rename(columns={"num_pl_spikes": "tail", "num_spikes": "spikes"})
    if (details["phase"] != "").any():
        table["phase"] = details["phase"]
    return table.assign(note=notes(details))


def brief_change(details: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a comparison that fit on a terminal, rounded, with a note beside each row."""
    names = (
        "relative_change",
        "alpha_a",
        "alpha_b",
        "alpha_of_delta",
        "stable_rank_of_delta",
        "cka",
        "overlap_out",
        "overlap_in",
    )
    shown = {"name": shown_names(details), **rounded(details, names), "note": notes(details)}
    sides = ["N", "M", "rf"] if (details["rf"] > 1).any() else ["N", "M"]
    return details[["name", *sides]].assign(**shown)


def shown_names(details: pd.DataFrame) -> list[str]:
    """Return the names of the layers for people."""
    return [visible(name) for name in details["name"]]


def notes(details: pd.DataFrame) -> list[str]:
    """Return the note beside each row of a table."""
    return [note(row) for row in details.to_dict("records")]


def note(row: Mapping[Any, Any]) -> str:
    """Return what a person should see beside a row of an analysis or a comparison: what it repeats, or what is wrong."""
    if row["tied_to"]:
        return f"tied to {visible(row['tied_to'])}"
    if row["status"] == "failed":
        return f"failed: {escaped(row['reason'])}"
    better = f"{row['alternative']} fits better" if row.get("alternative") else ""
    unchanged = "unchanged" if row["status"] == "unchanged" else ""
    return "; ".join(filter(None, (row.get("warning"), escaped(row["reason"]), better, unchanged)))
