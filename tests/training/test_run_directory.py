"""Where a run goes on when its directory holds another one."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

import htsr
from htsr.files import FileLock
from htsr.training.store.files import LOCK
from tests.training.test_monitor import make, train

QUICK = {"bulk": False, "bootstrap": 0}


def run(path, steps, *, first_step=0, seed=0, every=1, **options):
    model, optimizer = make(seed)
    with htsr.Monitor(
        model, optimizer, every=every, run_dir=path, first_step=first_step, **QUICK, **options
    ) as monitor:
        train(model, optimizer, steps)
    assert monitor.failed == []
    return monitor, model


@pytest.mark.parametrize("name", ["x", "run-2", "a.b", "[seed] 1", "x-2-2"])
def test_another_run_goes_on_beside_the_first(tmp_path, name, caplog):
    path = tmp_path / name
    first, _ = run(path, 3)
    with caplog.at_level(logging.WARNING):
        second, model = run(str(path), 2, seed=1)
        third, _ = run(path, 1, seed=2)
    assert [m.run_dir for m in (first, second, third)] == [path, tmp_path / f"{name}-2", tmp_path / f"{name}-3"]
    assert [m.history.steps for m in (first, second, third)] == [[0, 1, 2, 3], [0, 1, 2], [0, 1]]
    assert np.array_equal(second.history.spectrum(2, "0").eigenvalues, htsr.esd(model[0].weight))
    assert caplog.text.count("this run goes on in") == 2
    events = second.history.events
    assert events["kind"].tolist() == ["directory", "closed"]
    assert str(path) in events["message"].iloc[0]
    left = first.history.events.query("kind == 'directory'")
    assert left["step"].tolist() == [3, 3]
    assert [str(m.run_dir) in message for m, message in zip((second, third), left["message"], strict=True)] == [
        True,
        True,
    ]
    assert len(htsr.History.load_many(tmp_path)) == 3


def test_directories_of_other_people_are_left_alone(tmp_path):
    run(tmp_path / "x", 1)
    (tmp_path / "x-2").mkdir()
    (tmp_path / "x-2/notes.txt").write_text("mine")
    (tmp_path / "x-3").write_text("a file")
    assert run(tmp_path / "x", 1)[0].run_dir == tmp_path / "x-4"
    assert [path.name for path in (tmp_path / "x-2").iterdir()] == ["notes.txt"]


def test_an_empty_directory_is_used_as_it_is(tmp_path):
    (tmp_path / "x/captures").mkdir(parents=True)
    assert run(tmp_path / "x", 1)[0].run_dir == tmp_path / "x"


def test_a_run_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run(".", 1)
    assert run(".", 1)[0].run_dir == tmp_path / "work-2"


@pytest.mark.parametrize(("first_step", "name"), [(2, "x-3"), (3, "x-2"), (4, "x-2"), (6, "x"), (9, "x-3")])
def test_a_resumed_run_goes_on_in_the_last_directory_that_came_as_far(tmp_path, first_step, name):
    for seed, steps in enumerate((6, 4, 2)):
        run(tmp_path / "x", steps, seed=seed)
    run(tmp_path / "x-7", 20)  # somebody else's, which only looks like one of the family
    before = htsr.History(tmp_path / name).steps
    monitor, _ = run(tmp_path / "x", 2, first_step=first_step)
    assert monitor.run_dir == tmp_path / name
    kept = [step for step in before if step < first_step]
    assert monitor.history.steps == [*kept, first_step, first_step + 1, first_step + 2]
    assert monitor.history.about["resumed_at"] == first_step


def test_a_run_that_cannot_be_resumed_goes_on_beside_it(tmp_path):
    run(tmp_path / "x", 3)
    lock = FileLock(tmp_path / "x" / LOCK, "another Monitor writes there")
    monitor, _ = run(tmp_path / "x", 2, first_step=3)
    lock.release()
    assert monitor.run_dir == tmp_path / "x-2"
    assert monitor.history.steps == [3, 4, 5]


def test_a_path_that_cannot_be_a_directory_is_an_error_at_construction(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        htsr.Monitor(make()[0], run_dir=tmp_path / "file")


START = """
import sys, htsr, torch
monitor = htsr.Monitor(torch.nn.Linear(30, 20), run_dir=sys.argv[1], bulk=False, bootstrap=0)
monitor.close()
print(monitor.run_dir.name)
"""


def test_processes_that_start_together_get_directories_of_their_own(tmp_path):
    run(tmp_path / "x", 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(3)
    ]  # fmt: skip
    names = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert names == ["x-2", "x-3", "x-4"]
