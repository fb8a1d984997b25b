"""Pages of an analysis, of a comparison and of several runs, rendered from the templates of this folder."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from htsr._version import __version__
from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.layout import grouped_findings
from htsr.audit.table import notes, rounded
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.comparison.compare import Comparison
    from htsr.comparison.survey.survey import Survey


# A page shortens a longer text, such as the name of a stranger's layer, in the middle; a layer's findings are shorter.
MAX_TEXT = 1000


def _seen(value: object) -> object:
    """Return what a template prints of a value: what cannot be seen is escaped; autoescape then does the same for HTML."""
    return visible(value, MAX_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


TEMPLATES = Environment(
    loader=PackageLoader("htsr.report", package_path="."),
    autoescape=select_autoescape(["html", "j2"]),
    undefined=StrictUndefined,
    finalize=_seen,
    trim_blocks=True,
    lstrip_blocks=True,
)

TEMPLATES.globals["explanations"] = EXPLANATIONS

# Columns of a page's table beside name and note; one that nothing fills is not shown.
ANALYSED = (
    "layer_type", "N", "M", "rf", "phase", "alpha", "alpha_low", "alpha_high", "sigma", "null_alpha", "null_p_value", "D",
    "goodness_of_fit", "alternative", "alternative_p_value", "num_pl_spikes", "num_spikes", "num_traps", "stable_rank", "xmin",
    "effective_rank", "hard_rank", "entropy", "log_norm", "log_spectral_norm", "mp_softrank", "ERG_gap",
)  # fmt: skip
COMPARED = (
    "N", "M", "relative_change", "least_relative_change", "relative_spectral",
    "alpha_a", "alpha_b", "alpha_of_delta", "null_alpha_of_delta",
    "null_p_value_of_delta", "num_pl_spikes_of_delta", "num_spikes_of_delta", "stable_rank_of_delta", "hard_rank_of_delta", "cka",
    "overlap_out", "overlap_in", "angle_out", "angle_in", "phase_a", "phase_b", "phase_of_delta", "rounding",
)  # fmt: skip


def analysis_page(analysis: "Analysis") -> str:
    """Return the report of an audit as one HTML document with everything inside."""
    details = analysis.details
    has_alpha = details["alpha"].notna().any()
    shown = _filled(details, ANALYSED)
    return TEMPLATES.get_template("analysis.html.j2").render(
        version=__version__,
        title=f"Weight spectra of {Path(analysis.source).name}",
        source=f"{analysis.state} of {analysis.source}" if analysis.state else analysis.source,
        headline=[line for line in analysis.headline().split("\n")[1:] if line not in analysis.verdict_sentences()],
        verdict=analysis.verdict_sentences(),
        findings=list(grouped_findings(analysis.ranked_findings())),
        summary=analysis.summary(),
        convention=analysis.convention,
        depth=svg(analysis.plot("alpha")) if has_alpha else None,
        esds=svg(analysis.plot("esd")) if analysis.spectra else None,
        columns=[column for column in analysis.columns.values() if column.name in {"name", *shown}],
        header=shown,
        rows=_rows(details, shown, details["warning"].where(details["status"] != "failed", "failed")),
        has_interval=details["alpha_low"].notna().any(),
        skipped=analysis.skipped.groupby("reason", sort=False)["name"].agg(list).to_dict(),
    )


def comparison_page(comparison: "Comparison") -> str:
    """Return the report of a comparison as one HTML document with everything inside."""
    details = comparison.details
    shown = _filled(details, COMPARED)
    drawable = details["relative_change"].notna().any()
    return TEMPLATES.get_template("comparison.html.j2").render(
        version=__version__,
        title=f"{Path(comparison.b.source).name} against {Path(comparison.a.source).name}",
        a=comparison.a.source,
        b=comparison.b.source,
        headline=[line for line in comparison.headline().split("\n")[2:] if line not in comparison.verdict_sentences()],
        verdict=comparison.verdict_sentences(),
        findings=list(grouped_findings(comparison.ranked_findings())),
        summary={name: None if pd.isna(value) else value for name, value in comparison.summary().items()},
        overview=svg(comparison.plot("change")) if drawable else None,
        spectra={
            name: svg(comparison.plot(comparison[row].name))
            for row, name in comparison.most_changed(3).query("relative_change > 0")["name"].items()
        },
        columns=[column for column in comparison.columns.values() if column.name in {"name", *shown}],
        header=shown,
        rows=_rows(details, shown, details["status"].where(details["status"] != "changed", "")),
        unmatched=comparison.unmatched.to_dict("records"),
        skipped=comparison.skipped.groupby("reason", sort=False)["name"].agg(list).to_dict(),
    )


def survey_page(survey: "Survey") -> str:
    """Return the report of a survey as one HTML document with everything inside."""
    table = survey.brief()
    return TEMPLATES.get_template("survey.html.j2").render(
        version=__version__,
        title="Survey of weight files",
        headline=survey.headline().split("\n"),
        families={
            f"Family {family}": table.loc[rows.index].to_dict("records")
            for family, rows in survey.files.groupby("family", sort=True)
        },
        lost=table[survey.files["family"].isna()].to_dict("records"),
        layers=[
            {**row, "change": f"{row['relative_change']:.2g}", "correlation": f"{row['correlation']:.3g}"}
            for row in survey.layers.query("relation not in ('equal', 'rounded')").to_dict("records")
        ],
    )


def runs_page(
    title: str, findings: Sequence[str], table: pd.DataFrame, figures: Mapping[str, Figure], notes: Sequence[str]
) -> str:
    """A page that compares training runs.

    Args:
        title: Its title.
        findings: What was seen, a sentence each.
        table: One row a run.
        figures: Caption and figure, in order.
        notes: How it was made, a sentence each.

    Returns:
        One HTML document with everything inside.
    """
    return TEMPLATES.get_template("runs.html.j2").render(
        version=__version__,
        title=title,
        findings=findings,
        table=html_table(table),
        figures={caption: svg(figure) for caption, figure in figures.items()},
        notes=notes,
    )


def svg(figure: Figure) -> Markup:
    """Return a figure as an inline SVG element, without the XML prologue; the same picture gives the same bytes."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "htsr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    document = text.getvalue()
    return Markup(document[document.index("<svg") :])


def html_table(table: pd.DataFrame) -> Markup:
    """Return a table as HTML, its texts escaped."""
    shown = table.rename(columns=visible).map(lambda cell: visible(cell) if isinstance(cell, str) else cell)
    return Markup(shown.to_html(index=False, border=0, na_rep=""))  # pandas escapes what HTML would read


def _filled(details: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns in which any row has a value."""
    return [name for name in names if (details[name].notna() & (details[name].astype("str") != "")).any()]


def _rows(details: pd.DataFrame, shown: Sequence[str], kinds: pd.Series) -> list[dict[str, object]]:
    """Return what the template shows of each row: its name, rounded cells, note, and kind, which picks a colour."""
    texts = rounded(details, shown)
    beside = zip(details["name"], kinds, notes(details), strict=True)
    return [
        {
            "name": visible(name),
            "kind": kind,
            "note": note,
            "cells": {column: texts[column][number] for column in shown},
        }
        for number, (name, kind, note) in enumerate(beside)
    ]
