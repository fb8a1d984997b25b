"""Tables and texts for people."""

import pandas as pd
import pytest

from htsr.audit.columns import BY_NAME
from htsr.audit.table import details_frame, did_you_mean, interval_texts, note, shape_text, shortened, text_frame


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, "0"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4, ..., 5")])
def test_shortened(count, text):
    assert shortened(range(count)) == text


@pytest.mark.parametrize(("shape", "text"), [((), ""), ((3,), "3"), ((64, 3, 3), "64 x 3 x 3")])
def test_shapes(shape, text):
    assert shape_text(shape) == text


@pytest.mark.parametrize(
    ("name", "hint"),
    [("alhpa", "did you mean alpha?"), ("rank", "did you mean hard_rank or stable_rank?"), ("zzz", ""), ("", "")],
)
def test_hints(name, hint):
    assert did_you_mean(name, ["alpha", "stable_rank", "hard_rank", "D"]) == hint


ROW = {"tied_to": "", "status": "success", "reason": "", "warning": "", "alternative": ""}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (ROW, ""),
        (ROW | {"tied_to": "wte", "warning": "over-trained"}, "tied to wte"),
        (ROW | {"status": "failed", "reason": "all equal"}, "failed: all equal"),
        (ROW | {"warning": "over-trained", "reason": "dequantised"}, "over-trained; dequantised"),
        (ROW | {"alternative": "lognormal"}, "lognormal fits better"),
        ({"tied_to": "", "status": "unchanged", "reason": ""}, "unchanged"),
        ({"tied_to": "", "status": "changed", "reason": "most of it may be rounding"}, "most of it may be rounding"),
        ({"tied_to": "x", "status": "unchanged", "reason": ""}, "tied to x"),
    ],
)
def test_notes(row, text):
    assert note(row) == text


def test_what_a_row_lacks_is_missing():
    columns = [BY_NAME[name] for name in ("name", "alpha", "num_spikes", "phase")]
    table = details_frame([{"name": "w"}, {"name": "v", "alpha": 2.5, "num_spikes": 3}], columns)
    assert table["alpha"].isna().tolist() == [True, False]
    assert table["num_spikes"].tolist() == [pd.NA, 3]
    assert table["phase"].tolist() == ["", ""]


def test_intervals():
    rows = pd.DataFrame({"alpha_low": [2.0, float("nan")], "alpha_high": [3.456, float("nan")]})
    assert interval_texts(rows) == ["2.00 to 3.46", ""]


def test_an_empty_table_of_texts_has_its_columns():
    table = text_frame([], ("name", "reason"))
    assert list(table) == ["name", "reason"]
    assert (table["name"] == "x").sum() == 0
