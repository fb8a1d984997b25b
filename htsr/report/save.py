"""Write a result in the format that the suffix names."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from htsr._version import __version__
from htsr.audit.layout import markdown
from htsr.audit.tokens import tokens_markdown
from htsr.choices import FORMATS, RESULT_FORMATS
from htsr.errors import InputError
from htsr.files import require_parquet, through_links, written_aside
from htsr.files.archive import write_archive
from htsr.text import csv_cell

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.audit.saved import Arrays, Document
    from htsr.comparison.compare import Comparison
    from htsr.comparison.survey.survey import Survey
    from htsr.training import History
    from htsr.training.store.runs import Runs


def save_analysis(analysis: "Analysis", path: Path) -> Path:
    """Write an analysis in the format of the suffix and return the path; see ``Analysis.save``."""

    def page() -> str:
        from htsr.report.pages import analysis_page

        return analysis_page(analysis)

    def result() -> "tuple[Document, Arrays]":
        from htsr.audit.saved import analysis_document

        return analysis_document(analysis)

    return _write(path, analysis, page, lambda: analysis_json(analysis), result)


def save_comparison(comparison: "Comparison", path: Path) -> Path:
    """Write a comparison in the format of the suffix and return the path; see ``Comparison.save``."""

    def page() -> str:
        from htsr.report.pages import comparison_page

        return comparison_page(comparison)

    def result() -> "tuple[Document, Arrays]":
        from htsr.comparison.saved import comparison_document

        return comparison_document(comparison)

    return _write(path, comparison, page, lambda: comparison_json(comparison), result)


def save_survey(survey: "Survey", path: Path) -> Path:
    """Write a survey in the format of the suffix and return the path; see ``Survey.save``."""

    def page() -> str:
        from htsr.report.pages import survey_page

        return survey_page(survey)

    check_output(path, FORMATS)
    return _write_table(path, survey.files, page, lambda: survey_json(survey))


def save_history(history: "History", path: Path) -> Path:
    """Write a run in the format of the suffix and return the path; see ``History.save``."""

    def page() -> str:
        from htsr.report.pages import runs_page

        return runs_page({history.run_dir.name: history})

    check_output(path, FORMATS)
    return _write_table(path, history.details, page, lambda: history_json(history))


def save_runs(runs: "Runs", path: Path) -> Path:
    """Write several runs in the format of the suffix and return the path; see ``Runs.save``."""

    def page() -> str:
        from htsr.report.pages import runs_page

        return runs_page(runs)

    def document() -> str:
        about = {label: {"run": history.about, "settings": history.settings} for label, history in runs.items()}
        return json.dumps(
            {"htsr": __version__, "runs": about, "summary": _records(runs.summary())}, indent=1, allow_nan=False
        )

    check_output(path, FORMATS)
    return _write_table(path, runs.summary(), page, document)


def _write(
    path: Path,
    result: "Analysis | Comparison",
    page: Callable[[], str],
    document: Callable[[], str],
    parts: "Callable[[], tuple[Document, Arrays]]",
) -> Path:
    """Write a result in the format that the suffix names, and return the path."""
    check_output(path)
    match path.suffix.lower():
        case ".htsr":
            from htsr.audit.saved import SCHEMA

            about, arrays = parts()
            kind = "analysis" if "about" in about else "comparison"
            write_archive(path, {"htsr": __version__, "schema": SCHEMA, "result": kind, **about}, arrays)
            return path
        case ".md":
            first, *lines = result.headline().split("\n")
            text = markdown(first, lines, result.brief(), result.ranked_findings())
            text += tokens_markdown(result.tokens_named)
            with written_aside(through_links(path)) as file:
                file.write(text.encode())
            return path
    return _write_table(path, result.details, page, document)


def _write_table(path: Path, details: pd.DataFrame, page: Callable[[], str], document: Callable[[], str]) -> Path:
    """Write the page, the table or the document, whichever the suffix names, and return the path."""
    content: str | bytes
    match path.suffix.lower():
        case ".html":
            content = page()
        case ".csv":
            content = csv_table(details).to_csv(index=False)
        case ".json":
            content = document() + "\n"
        case ".parquet":
            content = details.to_parquet(index=False)
    with written_aside(through_links(path)) as file:  # through a link, not over it
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def csv_table(details: pd.DataFrame) -> pd.DataFrame:
    """Return the table with texts that no spreadsheet takes for a formula and no reader for two lines."""
    return details.assign(**{name: details[name].map(csv_cell) for name in details.select_dtypes("str")})


def check_output(path: Path, formats: Sequence[str] = RESULT_FORMATS) -> None:
    """Refuse a path that cannot be written; callers check before the work, too, so that it is not lost."""
    if path.suffix.lower() not in formats:
        raise InputError(f"{path}: expected a suffix among {', '.join(formats)}, got {path.suffix!r}")
    if path.suffix.lower() == ".parquet":
        require_parquet(path)
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the directory {path.absolute().parent} does not exist")
    if not os.access(through_links(path).parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{path}: no permission to write there")
    if path.is_dir():
        raise InputError(f"{path}: is a directory")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file or a new one, got a pipe or a device")


def analysis_json(analysis: "Analysis") -> str:
    """Return summary, details and skipped as strict JSON, in full precision, with null for missing values."""
    document = {
        "htsr": __version__,
        "source": analysis.source,
        "state": analysis.state or None,
        "metadata": analysis.metadata,
        "convention": analysis.convention,
        "verdict": analysis.verdict,
        "summary": {key: plain(value) for key, value in analysis.summary().items()},
        "findings": findings_records(analysis),
        "details": _records(analysis.details),
        "tokens": _records(analysis.tokens_named),
        "skipped": _records(analysis.skipped),
    }
    return json.dumps(document, indent=1, allow_nan=False)


def comparison_json(comparison: "Comparison") -> str:
    """Return summary, details, unmatched and skipped as strict JSON, in full precision, with null for missing values."""
    document = {
        "htsr": __version__,
        "a": comparison.a.source,
        "b": comparison.b.source,
        "state": comparison.a.state or None,
        "kind": comparison.kind,
        "kind_evidence": comparison.kind_evidence,
        "verdict": comparison.verdict,
        "findings": findings_records(comparison),
        "summary": {key: plain(value) for key, value in comparison.summary().items()},
        "details": _records(comparison.details),
        "tokens": _records(comparison.tokens_named),
        "unmatched": _records(comparison.unmatched),
        "skipped": _records(comparison.skipped),
    }
    return json.dumps(document, indent=1, allow_nan=False)


def findings_records(result: "Analysis | Comparison") -> list[dict[str, Any]]:
    """Return the findings, the worst first, with their evidence as numbers."""
    return [
        {
            "name": found.name,
            "kind": found.kind,
            "severity": found.severity,
            "finding": found.text,
            "evidence": {name: plain(value) for name, value in found.evidence.items()},
        }
        for found in result.ranked_findings()
    ]


def survey_json(survey: "Survey") -> str:
    """Return files, families and layers as strict JSON, in full precision, with null for missing values."""
    document = {
        "htsr": __version__,
        "files": _records(survey.files),
        "families": _records(survey.families),
        "layers": _records(survey.layers),
        "without": list(survey.without),
    }
    return json.dumps(document, indent=1, allow_nan=False)


def history_json(history: "History") -> str:
    """Return a run as strict JSON, in full precision, with null for missing values."""
    document = {
        "htsr": __version__,
        "run": history.about,
        "captures": _records(history.captures),
        "groups": _records(history.groups),
        "scalars": _records(history.scalars),
        "events": _records(history.events),
        "details": _records(history.details),
    }
    return json.dumps(document, indent=1, allow_nan=False)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON knows them."""
    return [{key: plain(value) for key, value in record.items()} for record in table.to_dict("records")]


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: null for what is missing or infinite, Python's numbers for numpy's."""
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value
