"""Self-contained HTML pages: one file without scripts or links to the network, which you can open anywhere and send by mail."""

from typing import TYPE_CHECKING

from htsr.choices import FORMATS

if TYPE_CHECKING:
    from htsr.report.history import history_page
    from htsr.report.pages import analysis_page, comparison_page, runs_page, survey_page
    from htsr.report.save import check_output, save_analysis, save_comparison, save_history, save_survey
else:  # jinja2 and matplotlib load with the pages, which other formats do not need
    from htsr.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "history": ["history_page"],
            "pages": ["analysis_page", "comparison_page", "runs_page", "survey_page"],
            "save": ["check_output", "save_analysis", "save_comparison", "save_history", "save_survey"],
        },
    )

__all__ = [
    "FORMATS",
    "analysis_page",
    "check_output",
    "comparison_page",
    "history_page",
    "runs_page",
    "save_analysis",
    "save_comparison",
    "save_history",
    "save_survey",
    "survey_page",
]
