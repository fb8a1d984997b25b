"""Pages and files of results: one HTML file that opens anywhere, tables, JSON, Markdown, and results that can be read again."""

from typing import TYPE_CHECKING

from htsr.choices import FORMATS

if TYPE_CHECKING:
    from htsr.report.pages import analysis_page, comparison_page, runs_page, survey_page
    from htsr.report.save import check_output, save_analysis, save_comparison, save_history, save_runs, save_survey
else:  # jinja2 loads with the pages, which other formats do not need
    from htsr.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "pages": ["analysis_page", "comparison_page", "runs_page", "survey_page"],
            "save": ["check_output", "save_analysis", "save_comparison", "save_history", "save_runs", "save_survey"],
        },
    )

__all__ = [
    "FORMATS",
    "analysis_page",
    "check_output",
    "comparison_page",
    "runs_page",
    "save_analysis",
    "save_comparison",
    "save_history",
    "save_runs",
    "save_survey",
    "survey_page",
]
