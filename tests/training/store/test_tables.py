"""Long runs: tables beside the captures, and runs side by side."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import htsr
from htsr.training.store import tables
from htsr.training.store.capture import Capture
from htsr.training.store.files import SCHEMA, capture_name
from htsr.training.store.tables import CAPTURES_PER_TABLE
from htsr.training.store.writer import RunWriter

ABOUT = {"schema": SCHEMA, "htsr": "0", "model": "M", "optimizer": None}


def write(run_dir, captures, first_step=0, scale=1.0):
    torch.manual_seed(0)
    weights = {name: torch.randn(20, 12) * scale for name in ("a", "b")}
    analysis = htsr.analyze(weights, bulk=False, progress=False)
    rows = [layer.row | {"quantity": "weights"} for layer in analysis]
    spectra = {("weights", name): spectrum for name, spectrum in analysis.spectra.items()}
    writer = RunWriter(run_dir, ABOUT, first_step)
    for number in range(captures):
        step = first_step + 10 * number
        writer.save(Capture(step, float(step), 0.5, rows, spectra, [{"lr": 0.1}]))
        writer.record(step, {"loss": scale})
    return writer


@pytest.fixture
def long_run(tmp_path):
    write(tmp_path / "run", 2 * CAPTURES_PER_TABLE + 5)
    return tmp_path / "run"


def test_tables_say_what_the_captures_say(long_run):
    history = htsr.History(long_run)
    written = sorted((long_run / "tables").iterdir())
    assert len(written) == 2
    with_tables = (
        history.details,
        history.alpha(),
        history.groups,
        history.captures,
        history.steps,
        history.analysis_seconds,
    )
    for table in written:
        table.unlink()
    without = (
        history.details,
        history.alpha(),
        history.groups,
        history.captures,
        history.steps,
        history.analysis_seconds,
    )
    for a, b in zip(with_tables[:4], without[:4], strict=True):
        pd.testing.assert_frame_equal(a, b)
    assert with_tables[4:] == without[4:]
    assert len(history.spectrum(10, "a")) == 12


def test_damage_under_a_table_is_still_noticed(long_run):
    parts = sorted((long_run / "captures").iterdir())
    parts[3].write_bytes(parts[3].read_bytes()[:100])
    parts[4].unlink()
    history = htsr.History(long_run)
    assert 30 not in history.steps
    assert 40 not in history.steps
    assert list(history.damaged) == [parts[3].name]
    assert sorted(history.details["step"].unique()) == history.steps


def test_a_damaged_table_is_no_loss(long_run, caplog):
    table = sorted((long_run / "tables").iterdir())[0]
    table.write_bytes(table.read_bytes()[:1000])
    history = htsr.History(long_run)
    assert len(history.steps) == len(history.alpha()) == 2 * CAPTURES_PER_TABLE + 5
    assert history.damaged == {table.name: "it does not end with a checksum; its captures are read instead"}
    assert table.name in caplog.text


def test_a_resumed_run_replaces_steps_and_their_tables(long_run):
    step = 10 * (CAPTURES_PER_TABLE + 50)
    write(long_run, 3, first_step=step, scale=2.0)
    history = htsr.History(long_run)
    assert history.steps == list(range(0, step + 30, 10))
    norms = history.over_steps("log_norm")["a"]
    assert (norms.loc[: step - 10].nunique(), norms.loc[step:].nunique()) == (1, 1)
    assert norms.loc[step] - norms.loc[0] == pytest.approx(2 * torch.log10(torch.tensor(2.0)).item())
    assert history.scalars["step"].max() == step + 20
    assert history.scalars.set_index("step").loc[step, "loss"] == 2


def test_a_table_keeps_every_cell(tmp_path):
    """Numbers bit by bit, missing and largest counts, texts that are empty or not ASCII, and columns of one value."""
    base = {"name": "a", "N": 3, "M": 2, "rf": 1, "num_evals": 2, "quantity": "weights"}
    cells = [
        {"alpha": 0.1, "D": -0.0, "num_spikes": 2**63 - 1, "phase": "é\n"},
        {"alpha": float("nan"), "D": 0.0, "phase": ""},
        {"alpha": float("inf"), "num_spikes": -5, "name": "b/ü" * 100},
    ]
    captures = [
        Capture(7, 1.0, 0.5, [base | row for row in cells], {}, []),
        Capture(2**63 - 1, 1.0, 0.5, [base], {}, []),
    ]
    path = tables.write_table(tmp_path, {capture_name(c.step): 1 for c in captures}, captures)
    table = tables.Table.open(path)
    expected = tables.rows_frame(captures)
    found = table.rows(list(expected))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert list(np.signbit(found["D"][:2])) == [True, False]
    assert list(table.rows(["step", "phase"])) == ["step", "phase"]
    empty = tables.write_table(tmp_path, {capture_name(9): 1}, [Capture(9, 1.0, 0.5, [], {}, [])])
    assert tables.Table.open(empty).rows(list(expected)).empty


def test_parquet_with_spectra(long_run, tmp_path):
    history = htsr.History(long_run)
    rows = pd.read_parquet(history.to_parquet(tmp_path / "x.parquet", spectra=True))
    assert len(rows) == len(history.details)
    assert list(rows["eigenvalues"].iloc[0]) == list(history.spectrum(0, "a").eigenvalues)


def test_an_unknown_schema_of_one_part_is_named(long_run):
    import htsr.training.store.capture as module

    part = sorted((long_run / "captures").iterdir())[-1]
    capture = Capture.load(part)
    original, module.SCHEMA = module.SCHEMA, 9
    try:
        capture.save(part)
    finally:
        module.SCHEMA = original
    history = htsr.History(long_run)
    assert len(history.steps) == 2 * CAPTURES_PER_TABLE + 4
    assert "expected a part of schema 3, got 9" in history.damaged[part.name]


def test_runs_side_by_side(tmp_path):
    write(tmp_path / "runs/one", 3)
    write(tmp_path / "runs/two", 2, scale=3.0)
    runs = htsr.History.load_many(tmp_path / "runs")
    assert list(runs) == ["one", "two"]
    assert runs.over_steps("log_norm").shape == (3, 2)
    assert runs.summary().set_index("run").loc["two", "loss"] == 3
    assert set(runs.details["run"]) == {"one", "two"}
    assert "2 runs" in repr(runs)
    runs.plot()
    assert list(htsr.History.load_many({"x": tmp_path / "runs/one"})) == ["x"]
    assert list(htsr.History.load_many(tmp_path)) == ["one", "two"]
    with pytest.raises(htsr.InputError, match="expected a directory of run directories"):
        htsr.History.load_many(tmp_path / "runs/one/captures")


def test_report_and_watch_on_the_command_line(tmp_path, capsys, read_page):
    from htsr.cli import main

    writer = write(tmp_path / "run", 3)
    writer.event(20, "closed", "0.1 s")
    assert main(["watch", str(tmp_path / "run")]) == 0  # ends, since the run is closed
    assert "step 20, 3 captures" in capsys.readouterr().out
    outputs = [tmp_path / name for name in ("r.html", "r.json", "r.csv", "r.parquet")]
    assert main(["report", str(tmp_path / "run"), *(f"-o{path}" for path in outputs)]) == 0
    page = read_page(outputs[0].read_text())
    assert page["runs"][0]["steps"] == [0, 10, 20]
    assert "nan" not in json.dumps([page["texts"], page["numbers"]]).lower()
    assert all(path.stat().st_size for path in outputs)
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/report.html").exists()
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert main(["watch", "--once", str(tmp_path)]) == 2
    assert "found no run.json" in capsys.readouterr().err
