"""Render the templates of this folder."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from htsr._version import __version__
from htsr.audit.analysis import note
from htsr.audit.columns import COLUMNS
from htsr.comparison.layer import COMPARED, note_of_change

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.comparison.compare import Comparison

TEMPLATES = Environment(
    loader=PackageLoader("htsr.report", package_path="."),
    autoescape=select_autoescape(["html", "j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

# The columns of the page's table beside name and note: digits after the point. None leaves a value as it is.
TABLE = {
    "layer_type": None, "N": None, "M": None, "rf": None, "phase": None, "alpha": 2, "alpha_low": 2, "alpha_high": 2,
    "sigma": 2, "null_alpha": 2, "null_p_value": 3, "D": 3, "goodness_of_fit": 2, "alternative": None,
    "alternative_p_value": 3, "num_pl_spikes": None, "num_spikes": None, "num_traps": None, "stable_rank": 1, "xmin": 4,
    "effective_rank": 1, "hard_rank": None, "entropy": 3, "log_norm": 2, "log_spectral_norm": 2, "mp_softrank": 3,
    "ERG_gap": None,
}  # fmt: skip
# The same for a comparison, with the format of each; a column that nothing filled is not shown.
COMPARED_TABLE = {
    "N": None, "M": None, "relative_change": ".2g", "relative_spectral": ".2g", "alpha_a": ".2f", "alpha_b": ".2f",
    "alpha_delta": ".2f", "null_alpha_delta": ".2f", "null_p_value_delta": ".2f", "num_pl_spikes_delta": None,
    "num_spikes_delta": None, "stable_rank_delta": ".1f", "hard_rank_delta": None, "cka": ".4f", "overlap_out": ".3f",
    "overlap_in": ".3f", "angle_out": ".1f", "angle_in": ".1f", "phase_a": None, "phase_b": None, "phase_delta": None,
    "rounding": ".1g",
}  # fmt: skip


def analysis_page(analysis: "Analysis") -> str:
    """The report of an audit.

    Args:
        analysis: What to report.

    Returns:
        One HTML document with everything inside.
    """
    details = analysis.details
    has_alpha = details["alpha"].notna().any()
    shown = [name for name in TABLE if (details[name].notna() & (details[name].astype("str") != "")).any()]
    return TEMPLATES.get_template("analysis.html.j2").render(
        version=__version__,
        title=f"Weight spectra of {Path(analysis.source).name}",
        source=analysis.source,
        headline=analysis.headline().split("\n")[1:],
        findings=analysis.findings.groupby("name", sort=False)["finding"].agg(list).to_dict(),
        summary=analysis.summary(),
        convention=analysis.convention,
        depth=svg(analysis.plot("alpha")) if has_alpha else None,
        esds=svg(analysis.plot("esd")) if analysis.spectra else None,
        columns=[column for column in COLUMNS if column.name in {"name", *shown}],
        header=shown,
        rows=[_row(row, shown) for row in details.to_dict("records")],
        has_interval=details["alpha_low"].notna().any(),
        skipped=analysis.skipped.groupby("reason", sort=False)["name"].agg(list).to_dict(),
    )


def comparison_page(comparison: "Comparison") -> str:
    """The report of a comparison.

    Args:
        comparison: What to report.

    Returns:
        One HTML document with everything inside.
    """
    details = comparison.details
    shown = [name for name in COMPARED_TABLE if name in details and details[name].notna().any()]
    drawable = details["relative_change"].notna().any()
    return TEMPLATES.get_template("comparison.html.j2").render(
        version=__version__,
        title=f"{Path(comparison.b.source).name} against {Path(comparison.a.source).name}",
        a=comparison.a.source,
        b=comparison.b.source,
        headline=comparison.headline().split("\n")[2:],
        summary={name: None if pd.isna(value) else value for name, value in comparison.summary().items()},
        overview=svg(comparison.plot("change")) if drawable else None,
        spectra={
            name: svg(comparison.plot(name)) for name in comparison.most_changed(3).query("relative_change > 0")["name"]
        },
        columns=[column for column in COMPARED if column.name in {"name", *shown}],
        header=shown,
        rows=[_compared_row(row, shown) for row in details.to_dict("records")],
        unmatched=comparison.unmatched.to_dict("records"),
        skipped=comparison.skipped.groupby("reason", sort=False)["name"].agg(list).to_dict(),
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
        table=Markup(table.to_html(index=False, border=0, na_rep="")),  # pandas escapes the cells
        figures={caption: svg(figure) for caption, figure in figures.items()},
        notes=notes,
    )


def svg(figure: Figure) -> Markup:
    """A figure as an inline SVG element, the same bytes for the same picture.

    Args:
        figure: The figure.

    Returns:
        The element, without the XML prologue.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "htsr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    document = text.getvalue()
    return Markup(document[document.index("<svg") :])


def _compared_row(row: dict[str, Any], shown: Sequence[str]) -> dict[str, object]:
    cells = {name: "" if pd.isna(row[name]) else format(row[name], COMPARED_TABLE[name] or "") for name in shown}
    kind = row["status"] if row["status"] != "changed" else ""
    return {"name": row["name"], "cells": cells, "note": note_of_change(row), "kind": kind}


def _row(row: dict[str, Any], shown: Sequence[str]) -> dict[str, object]:
    cells = {}
    for name in shown:
        value, digits = row[name], TABLE[name]
        if pd.isna(value):
            cells[name] = ""
        elif digits is None:
            cells[name] = value
        else:
            cells[name] = f"{value:.{digits}{'g' if name == 'xmin' else 'f'}}"
    kind = "failed" if row["status"] == "failed" else row["warning"]
    return {"name": row["name"], "cells": cells, "note": note(row), "kind": kind}
