"""Tables that fit, and what is counted instead of repeated."""

import pandas as pd
import pytest

from htsr.audit.findings import Finding
from htsr.audit.layout import findings_lines, fit_width, folded, in_markdown, is_numeric, markdown_table

TABLE = pd.DataFrame(
    {
        "name": [f"encoder.layer.{i}.attention.self.query.weight" for i in range(3)],
        "kind": ["dense"] * 3,
        "alpha": ["2.50", "12.30", ""],
        "D": ["0.051", "0.1", ""],
        "note": ["", "a note of a certain length that says why", ""],
    }
)


def widths(table):
    return [sum(max(len(n), *table[n].map(len)) + 2 for n in table) - 2]


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 44])
def test_a_table_fits_its_width(width):
    fitted = fit_width(TABLE, width, ("D", "kind"))
    assert widths(fitted)[0] <= width
    assert {"name", "alpha", "note"} <= set(fitted)
    assert fitted["name"].is_unique or width < 60


def test_a_wide_terminal_shows_everything():
    pd.testing.assert_frame_equal(fit_width(TABLE, 500), TABLE.astype("str"))


def test_expendable_columns_go_the_last_first():
    kept = [set(fit_width(TABLE, width, ("D", "kind"))) for width in (90, 58, 50)]
    assert [{"D", "kind"} & names for names in kept] == [{"D", "kind"}, {"D"}, set()]


@pytest.mark.parametrize(
    ("length", "short"),
    [
        (40, "encoder.layer.4.attention.self.value"),
        (30, "e.layer.4.attention.self.value"),
        (20, "e.l.4.a.self.value"),
        (16, "e.l.4.a.s.value"),
        (9, "e.l.\u2026alue"),
    ],
)
def test_a_name_keeps_its_number_and_its_last_component(length, short):
    assert folded("encoder.layer.4.attention.self.value", length) == short


@pytest.mark.parametrize("length", range(3, 12))
def test_folding_keeps_both_ends(length):
    short = folded("abcdefghijkl", length)
    assert len(short) == length
    assert short[0] == "a"
    assert short[-1] == "l"
    assert folded("abc", length) == "abc"


def test_notes_are_counted_and_problems_are_told():
    def some(kind, severity, number):
        return [Finding(f"layer{i}", kind, severity, f"sentence {i}", {}) for i in range(number)]

    lines = findings_lines(
        [*some("noise", "problem", 5), *some("short-tail", "note", 17), *some("not-fitted", "note", 1)]
    )
    assert lines == [
        "problem: noise (5)",
        "  layer0: sentence 0",
        "  layer1: sentence 1",
        "  layer2: sentence 2",
        "  and 2 more",
        "note: short-tail (17)",
        "note: not-fitted (1)",
        "  layer0: sentence 0",
    ]


def test_markdown_shows_a_strangers_name_as_it_is():
    name = "a|b`<script>[x](http://x)*_"
    row = markdown_table(pd.DataFrame({"name": [name], "alpha": ["2.5"]})).split("\n")[-1]
    assert row.count(" | ") == 1
    assert "<script>" not in row
    assert in_markdown("[x](y)") == r"\[x\](y)"


@pytest.mark.parametrize(
    ("texts", "numeric"),
    [(["1", "-2.5", ""], True), (["< 3e-6", "0.1"], True), (["nan"], True), (["1 to 2", "x"], False), ([""], False)],
)
def test_numbers_stand_to_the_right(texts, numeric):
    assert is_numeric(pd.Series(texts, dtype="str")) == numeric
