"""Columns: one record each, which options, types, texts and tables agree with."""

import inspect
import re

import numpy as np
import pandas as pd
import pytest
import torch

import htsr
from htsr.audit.columns import BY_NAME, COLUMNS, COMPARISON_COLUMNS, HISTORY_COLUMNS, STEP_COLUMNS, Column
from htsr.audit.phases import PHASES
from htsr.audit.table import details_frame
from tests.conftest import planted

TABLES = {"analysis": COLUMNS, "history": HISTORY_COLUMNS, "comparison": COMPARISON_COLUMNS, "steps": STEP_COLUMNS}
FILLED_BY = {"bootstrap": 20, "alternatives": True, "randomize": True, "bulk": True, "vectors": True,
             "clip_fingers": True, "fixed_aspect": True}  # fmt: skip


@pytest.fixture(scope="module")
def telling():
    """Two layers that fill every column between them: one has spikes and a trap, an exponential fits the tail of the other."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 200))
    noise[3, 5], noise[:, 0] = 60, 4 * noise[:, 0]
    values = torch.tensor(rng.exponential(size=300) + 1.0).sort().values
    return {"noise": noise, "exponential": planted(values, 300)}


def filled(analysis):
    cells = [(name, value) for layer in analysis for name, value in layer.row.items()]
    return {name for name, value in cells if value != "" and not pd.isna(value)}


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_every_column_of_a_table_is_known_once(columns):
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    assert set(names) <= set(BY_NAME)
    for column in columns:
        assert column.meaning
        assert column.dtype in ("str", "int64", "Int64", "float64")
        assert not (column.digits and column.dtype != "float64")
        assert list(details_frame([], columns)) == names


def test_options_are_those_of_analyze():
    options = inspect.signature(htsr.analyze).parameters
    assert {column.needs for column in BY_NAME.values()} - {""} == set(FILLED_BY) <= set(options)


@pytest.fixture(scope="module")
def always(telling):
    return filled(htsr.analyze(telling, bulk=False))


def test_columns_that_need_nothing_are_always_filled(always):
    free = {column.name for column in COLUMNS if not column.needs}
    assert always <= free
    assert free - always <= {"reason", "warning", "tied_to"}  # nothing is wrong with these layers


@pytest.mark.parametrize("option", FILLED_BY)
def test_an_option_fills_the_columns_that_need_it_and_no_others(telling, always, option):
    options = {"bulk": False, option: FILLED_BY[option], "xmin": 1.0 if option == "alternatives" else "ks"}
    needing = {column.name for column in COLUMNS if column.needs == option} - {
        "phase_probability"
    }  # it needs bulk, too
    assert filled(htsr.analyze(telling, **options)) - always - {"warning", "reason"} == needing


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (BY_NAME["alpha"], 2.345, "2.35"),
        (BY_NAME["alpha"], np.float64("nan"), ""),
        (BY_NAME["xmin"], 0.0123456, "0.01235"),
        (BY_NAME["num_spikes"], 12, "12"),
        (BY_NAME["num_spikes"], pd.NA, ""),
        (BY_NAME["hard_rank"], float("nan"), ""),
        (BY_NAME["N"], np.int64(4096), "4096"),
        (BY_NAME["relative_distance"], 0.000123, "1.2e-04"),
        (BY_NAME["phase"], "random-like", "random-like"),
        (BY_NAME["phase"], "", ""),
    ],
)
def test_texts_for_people(column, value, text):
    assert column.text(value) == text


@pytest.mark.parametrize("side", ["a", "b", "of_delta"])
def test_columns_of_a_comparison_are_those_of_an_analysis(side):
    derived = {name.removesuffix(f"_{side}"): column for name, column in BY_NAME.items() if name.endswith(f"_{side}")}
    assert "alpha" in derived
    for name, column in derived.items():
        base = BY_NAME[name]
        assert (column.dtype, column.digits) == (base.dtype, base.digits), name
        values = tuple(
            value.replace("rank-collapse", "low-rank") if side == "of_delta" else value for value in base.values
        )
        assert column.values == values, name


def test_a_meaning_is_understood_alone():
    """No meaning refers to the row above it."""
    for column in BY_NAME.values():
        assert not re.match(r"(its|that|the same|upper end$|lower end$)\b", column.meaning), column


def test_what_is_missing_has_the_type_of_the_column():
    assert Column("x", "str", "").missing == ""
    for dtype in ("float64", "Int64"):
        column = Column("x", dtype, "")
        assert details_frame([{}, {"x": 3}, {"x": column.missing}], [column])["x"].isna().tolist() == [
            True,
            False,
            True,
        ]


def test_results_know_their_columns(tmp_path):
    a = htsr.analyze({"w": torch.randn(30, 20)})
    assert list(a.columns) == list(a.details)
    c = htsr.compare({"w": torch.randn(30, 20)}, {"w": torch.randn(30, 20)})
    assert list(c.columns) == list(c.details)
    with htsr.Monitor(torch.nn.Linear(30, 20), run_dir=tmp_path / "run") as monitor:
        monitor.step()
    assert list(monitor.history.columns) == list(monitor.history.details)


def test_phases_name_themselves():
    assert all(phase in BY_NAME["phase"].meaning for phase in PHASES)
