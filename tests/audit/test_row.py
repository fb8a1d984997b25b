"""Rows: every one has every column of its table, in order, whatever made it."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import htsr
from htsr.audit.columns import BY_NAME, COLUMNS, COMPARISON_COLUMNS, HISTORY_COLUMNS
from htsr.audit.row import captured_row, finished, known_cells, with_distances

NAMES = [column.name for column in COLUMNS]


def tied():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"emb": nn.Embedding(50, 30), "head": nn.Linear(30, 50, bias=False), "bad": nn.Linear(40, 30)}
    )
    model["head"].weight = model["emb"].weight
    model["flat"] = nn.Linear(20, 1)
    with torch.no_grad():
        model["bad"].weight[0, 0] = math.nan
    return model


def check(row, columns):
    assert list(row) == [column.name for column in columns]
    for column in columns:
        value = row[column.name]
        assert value is not None, column.name
        if column.dtype == "str":
            assert isinstance(value, str), column.name
        elif column.dtype == "float64":
            assert isinstance(value, float), column.name
        elif not (column.dtype == "Int64" and isinstance(value, float) and math.isnan(value)):
            assert int(value) == value, column.name


@pytest.mark.parametrize(
    "options",
    [{}, {"bulk": False}, {"bootstrap": 20, "randomize": True, "vectors": True}, {"n_jobs": 2}, {"device": "cpu"}],
)
def test_rows_of_an_analysis(options):
    for layer in htsr.analyze(tied(), progress=False, **options):
        check(layer.row, COLUMNS)


@pytest.mark.parametrize(
    "weight", [torch.zeros(30, 20), torch.full((30, 20), math.nan), torch.ones(1, 1), torch.eye(40)]
)
def test_rows_of_awkward_weights(weight):
    check(htsr.analyze(weight)["weight"].row, COLUMNS)


def test_rows_from_a_journal(tmp_path):
    save_file(
        {"w.weight": torch.randn(30, 20), "bad.weight": torch.full((30, 20), math.nan)}, tmp_path / "m.safetensors"
    )
    first, second = (htsr.analyze(tmp_path / "m.safetensors", journal=tmp_path / "kept") for _ in range(2))
    for layer in second:
        check(layer.row, COLUMNS)
        assert known_cells(layer.row) == known_cells(first[layer.name].row)
        assert (layer.bulk_max is None) == (first[layer.name].bulk_max is None)


def test_rows_of_a_comparison():
    other = tied()
    with torch.no_grad():
        other["emb"].weight.add_(0.1 * torch.randn(50, 30))
    c = htsr.compare(tied(), other)
    assert list(c.details["status"]) == ["changed", "changed", "failed", "unchanged"]
    for layer in c:
        check(layer.row, COMPARISON_COLUMNS)
        for side in (layer.a, layer.b, layer.delta):
            check(side.row, COLUMNS)
            assert side.row["tied_to"] == layer.row["tied_to"]
    assert c["head"].a.row["longname"] == "head"


def test_rows_of_a_monitor(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    with htsr.Monitor(model, optimizer, every=1, capture=("weights", "gradients"), run_dir=tmp_path / "run") as monitor:
        save, monitor._writer.save = monitor._writer.save, lambda capture: (seen.extend(capture.rows), save(capture))
        model(torch.randn(4, 30)).square().sum().backward()
        optimizer.step()
    assert [row["quantity"] for row in seen] == ["weights", "gradients"]
    for row in seen:
        check({"step": 1, **{name: row[name] for name in row}} | {}, (BY_NAME["step"], *HISTORY_COLUMNS[1:]))
    assert seen[0]["distance"] > 0
    assert math.isnan(seen[1]["distance"])
    details = monitor.history.details
    assert list(details) == [column.name for column in HISTORY_COLUMNS]
    assert details["distance"].notna().tolist() == [False, True, False]


def test_a_cell_of_no_column_is_refused():
    with pytest.raises(AssertionError, match="no such column: alhpa"):
        finished({"name": "w", "alhpa": 2.0})


def test_what_is_none_is_missing():
    row = finished({"name": "w", "alpha": None, "phase": None, "num_spikes": None})
    assert (math.isnan(row["alpha"]), row["phase"], math.isnan(row["num_spikes"])) == (True, "", True)
    assert known_cells(row).keys() == {name for name in NAMES if BY_NAME[name].dtype == "str"}
    assert list(finished(known_cells(row))) == list(row)


def test_distances_are_of_weights_and_of_the_layer_that_is_tied_to():
    distances = {"w": {"distance": 2.0, "relative_distance": 0.5}}
    for own, quantity, expected in (("w", "weights", 2.0), ("v", "weights", None), ("w", "gradients", None)):
        row = with_distances(captured_row(finished({"name": own}), quantity), distances)
        assert known_cells(row).get("distance") == expected
    row = with_distances(captured_row(finished({"name": "v", "tied_to": "w"}), "weights"), distances)
    assert row["relative_distance"] == 0.5
