"""Reading runs: growing, damaged, foreign."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import htsr
from htsr.report.page.runs import runs_data
from htsr.training.live import is_closed, screen


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
    monitor = htsr.Monitor(model, every=10, run_dir=tmp_path / "run")
    for _ in range(30):
        monitor.step()
    return monitor


def test_tables(run):
    history = htsr.History(run.run_dir)
    assert history.steps == [0, 10, 20, 30]
    assert len(history) == 4
    assert list(history.details.columns)[:2] == ["step", "name"]
    assert len(history.details) == 8
    assert history.alpha().shape == (4, 2)
    assert list(history.alpha().columns) == ["0", "1"]
    last = history.details.query("step == 30 and name == '1'").iloc[0]
    assert history.alpha().loc[30, "1"] == last["alpha"]
    assert htsr.fit_power_law(history.spectrum(30, "1")).alpha == last["alpha"]
    assert "4 captures" in repr(history)
    assert "4 captures" in history._repr_html_()


def test_a_history_grows_with_its_run(run):
    history = htsr.History(run.run_dir)
    assert history.steps[-1] == 30
    for _ in range(10):
        run.step()
    assert history.steps[-1] == 40


def test_unknown_step_and_layer(run):
    with pytest.raises(KeyError, match="step 5: expected one of the captured steps 0, 10, 20, 30"):
        run.history.spectrum(5, "0")
    with pytest.raises(KeyError, match="'2' has no spectrum at step 10"):
        run.history.spectrum(10, "2")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", "half"])
def test_a_damaged_part_is_reported_and_the_rest_is_read(run, damage, caplog):
    part = sorted((run.run_dir / "captures").iterdir())[1]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2] if damage == "half" else damage)
    history = htsr.History(run.run_dir)
    assert history.steps == [0, 20, 30]
    assert list(history.damaged) == [part.name]
    assert part.name in caplog.text
    assert "1 damaged" in repr(history)


@pytest.mark.parametrize("name", ["\ud800", "a\udfff", "\x1b[31m", "<b>", "=1+1", ""])
def test_a_scalar_of_any_name(run, name):
    run.record(**{name: 1.5})
    history = htsr.History(run.run_dir)
    ((shown, values),) = history.scalars.drop(columns="step").items()
    assert list(values) == [1.5]
    assert history.last_scalars == {shown: 1.5}
    assert shown == name or "\\ud" in shown
    assert "<b>" not in history._repr_html_()


def test_leftovers_of_a_killed_writer_are_ignored(run):
    (run.run_dir / "captures" / ".step-000000000040.npz.123").write_bytes(b"half")
    run.record(loss=1.5)
    with (run.run_dir / "scalars.jsonl").open("a") as file:
        file.write('\n{"step": 31, "lo')
    history = htsr.History(run.run_dir)
    assert history.steps == [0, 10, 20, 30]
    assert history.scalars.to_dict("list") == {"step": [30], "loss": [1.5]}
    assert history.damaged == {}
    run.close()
    resumed = htsr.Monitor(nn.Linear(40, 30), every=10, run_dir=run.run_dir, first_step=30)
    resumed.record(loss=1.25, other=2.0)
    assert history.scalars.to_dict("list") == {"step": [30], "loss": [1.25], "other": [2.0]}
    ((line, why),) = history.damaged.items()
    assert line == "scalars.jsonl, line 4"
    assert why.startswith("it is no JSON")


def test_replaced_and_repaired_captures_are_read_again(run):
    history = htsr.History(run.run_dir)
    before = history.alpha().loc[30, "0"]
    part = sorted((run.run_dir / "captures").iterdir())[1]
    whole = part.read_bytes()
    part.write_bytes(b"torn")
    assert history.steps == [0, 20, 30]
    part.unlink()
    part.write_bytes(whole)
    assert history.steps == [0, 10, 20, 30]
    assert history.damaged == {}
    torch.manual_seed(7)
    run.close()
    resumed = htsr.Monitor(nn.Sequential(nn.Linear(40, 30)), every=10, run_dir=run.run_dir, first_step=20)
    for _ in range(10):
        resumed.step()
    assert history.alpha().loc[30, "0"] != before


def test_a_line_that_holds_no_numbers_is_damaged(run):
    run.record(loss=1.0)
    with (run.run_dir / "scalars.jsonl").open("a") as file:
        file.write('\n{"step": 31, "loss": "x"}')
    run.record(loss=2.0)
    history = htsr.History(run.run_dir)
    assert history.scalars.to_dict("list") == {"step": [30], "loss": [2.0]}
    assert history.damaged == {"scalars.jsonl, line 4": "expected numbers only"}


def test_a_loss_that_diverged_is_shown_so(run):
    run.record(loss=1.0)
    run.step(loss=float("nan"))
    assert np.isnan(htsr.History.load_many([run.run_dir]).summary()["loss"].iloc[0])
    assert "loss nan" in screen(htsr.History(run.run_dir))


def test_a_run_that_was_resumed_is_not_over(run):
    run.close()
    assert is_closed(htsr.History(run.run_dir))
    resumed = htsr.Monitor(nn.Linear(40, 30), every=10, run_dir=run.run_dir, first_step=30)
    assert not is_closed(htsr.History(run.run_dir))
    resumed.close()
    assert is_closed(htsr.History(run.run_dir))


def test_what_is_no_run_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        htsr.History(tmp_path / "nothing")
    with pytest.raises(htsr.InputError, match=r"found no run.json"):
        htsr.History(tmp_path)


def test_another_schema_is_refused_by_name(run):
    path = run.run_dir / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "htsr": "7.0"}))
    with pytest.raises(htsr.InputError, match=r"expected schema 3, got 99, written by htsr 7.0"):
        htsr.History(run.run_dir)


def test_the_interval_of_alpha_is_recorded_and_shown(run):
    history = htsr.History(run.run_dir)
    last = history.details.query("step == 30")
    assert (last["alpha_low"] < last["alpha"]).all()
    assert (last["alpha"] < last["alpha_high"]).all()
    text = f"{last['alpha_low'].iloc[1]:.2f} to {last['alpha_high'].iloc[1]:.2f}"
    assert text in screen(history)
    page = runs_data({"run": history})
    assert page["texts"]["alpha_low"][1] == f"{last['alpha_low'].iloc[1]:.2f}"


def test_a_run_of_schema_1_is_read(run):
    """Its captures had neither a schema nor quantities, and there were no tables and no events."""
    new = htsr.History(run.run_dir)
    details, spectrum = new.details, new.spectrum(20, "1")
    about = json.loads((run.run_dir / "run.json").read_text())
    del about["#"]
    (run.run_dir / "run.json").write_text(json.dumps({**about, "schema": 1}))
    (run.run_dir / "events.jsonl").unlink(missing_ok=True)
    for part in (run.run_dir / "captures").iterdir():
        with np.load(part) as stored:
            look, eigenvalues = json.loads(stored["about"].tobytes()), stored["eigenvalues"]
        del look["schema"]
        for item in (*look["rows"], *look["spectra"]):
            del item["quantity"]
        np.savez(part, about=np.frombuffer(json.dumps(look).encode(), dtype=np.uint8), eigenvalues=eigenvalues)
    old = htsr.History(run.run_dir)
    assert old.damaged == {}
    pd.testing.assert_frame_equal(old.details, details)
    assert (old.spectrum(20, "1").eigenvalues == spectrum.eigenvalues).all()
    assert old.alpha().shape == (4, 2)
    assert old.events.empty


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_broken_description_is_one_clear_error(run, content):
    (run.run_dir / "run.json").write_text(content)
    with pytest.raises(htsr.InputError, match=r"run.json: expected the description of a run"):
        htsr.History(run.run_dir)


def test_a_layer_that_fails_in_between_is_drawn_where_it_can_be(tmp_path):
    model = nn.Sequential(nn.Linear(40, 30))
    monitor = htsr.Monitor(model, every=1, run_dir=tmp_path)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
        monitor.step()
        model[0].weight.zero_()
        monitor.step()
        torch.nn.init.normal_(model[0].weight)
        monitor.step()
    figure = monitor.history.plot("0")
    assert [line.get_label() for line in figure.axes[0].lines] == ["step 0", "step 3"]
    monitor.history.plot("alpha")


def test_a_model_without_matrices(tmp_path):
    monitor = htsr.Monitor(nn.LayerNorm(8), run_dir=tmp_path)
    assert "1 captures" in repr(monitor.history)
    with pytest.raises(ValueError, match="no layer to draw"):
        monitor.history.plot()


def test_an_empty_run(run):
    for part in (run.run_dir / "captures").iterdir():
        part.unlink()
    history = htsr.History(run.run_dir)
    assert history.steps == []
    assert len(history.details) == 0
    assert len(history.scalars) == 0
    assert "0 captures" in repr(history)
    with pytest.raises(ValueError, match="nothing captured yet"):
        history.plot()


def test_an_unknown_metric(run):
    with pytest.raises(ValueError, match="got 'nope'"):
        run.history.over_steps("nope")
