"""Reading runs: growing, damaged, foreign."""

import json

import pytest
import torch
from torch import nn

import htsr


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


def test_leftovers_of_a_killed_writer_are_ignored(run):
    (run.run_dir / "captures" / ".step-000000040.npz.123").write_bytes(b"half")
    with (run.run_dir / "scalars.jsonl").open("a") as file:
        file.write('{"step": 30, "loss": 1.5}\n{"step": 31, "lo')
    history = htsr.History(run.run_dir)
    assert history.steps == [0, 10, 20, 30]
    assert history.scalars.to_dict("list") == {"step": [30], "loss": [1.5]}
    assert history.damaged == {}


def test_what_is_no_run_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        htsr.History(tmp_path / "nothing")
    with pytest.raises(htsr.InputError, match=r"found no run.json"):
        htsr.History(tmp_path)


def test_another_schema_is_refused_by_name(run):
    path = run.run_dir / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "htsr": "7.0"}))
    with pytest.raises(htsr.InputError, match=r"expected schema 1, got 99, written by htsr 7.0"):
        htsr.History(run.run_dir)


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
