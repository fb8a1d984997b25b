"""Pages: one HTML file each, which opens anywhere, also from a mail, and loads nothing from the network."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from htsr._version import __version__
from htsr.report.page.analysis import analysis_data
from htsr.report.page.comparison import comparison_data
from htsr.report.page.document import document
from htsr.report.page.runs import runs_data
from htsr.report.page.table import MAX_TEXT
from htsr.text import visible

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.comparison.compare import Comparison
    from htsr.comparison.survey.survey import Survey
    from htsr.training import History


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


def analysis_page(analysis: "Analysis") -> str:
    """Return the page of an analysis as one HTML document."""
    return document(analysis_data(analysis))


def comparison_page(comparison: "Comparison") -> str:
    """Return the page of a comparison as one HTML document."""
    return document(comparison_data(comparison))


def runs_page(
    runs: "Mapping[str, History]",
    title: str = "",
    sentences: Sequence[str] = (),
    notes: Sequence[str] = (),
    links: "Mapping[str, str] | None" = None,
) -> str:
    """Return the page of one training run or of several as one HTML document.

    Args:
        runs: The runs by label.
        title: Its title; by default it names the run, or their number.
        sentences: The verdict; by default what the runs say for themselves.
        notes: How the runs were made, a sentence each.
        links: Texts and the addresses, relative to the page, of other pages.

    Raises:
        InputError: If no run has a capture with a layer.
    """
    return document(runs_data(runs, title, sentences, notes, links or {}))


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
