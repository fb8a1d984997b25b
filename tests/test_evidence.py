"""The figures of the pages of evidence are those of the studies' reports."""

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INTERVAL = re.compile(r"([+-]?\d+\.\d+) to ([+-]?\d+\.\d+)")


def intervals(path):
    """Return the intervals in a text, as pairs of numbers and how far rounding may have moved them."""
    found = INTERVAL.findall(path.read_text(encoding="utf-8"))
    return [(float(low), float(high), 0.5 * 10.0 ** -len(low.partition(".")[2])) for low, high in found]


@pytest.mark.parametrize(("page", "least"), [("evidence.md", 50), ("steering_evidence.md", 20)])
def test_every_interval_of_the_evidence_stands_in_a_report(page, least):
    reports = (ROOT / "benchmarks" / "results").glob("study_*.md")
    measured = list(chain.from_iterable(map(intervals, reports)))
    quoted = intervals(ROOT / "docs" / page)
    assert len(quoted) > least
    unknown = [
        (low, high)
        for low, high, rounding in quoted
        if not any(abs(low - a) <= rounding + other and abs(high - b) <= rounding + other for a, b, other in measured)
    ]
    assert not unknown
