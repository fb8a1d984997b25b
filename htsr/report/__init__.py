"""Self-contained HTML pages: one file without scripts or links to the network, which you can open anywhere and send by mail."""

from htsr.report.history import history_page
from htsr.report.pages import analysis_page, comparison_page, runs_page
from htsr.report.save import FORMATS, check_output, save_analysis, save_comparison, save_history

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
]
