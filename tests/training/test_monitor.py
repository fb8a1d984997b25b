"""The monitor in real training loops."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.optim import HTMuon, parameter_groups


def make(seed=0, lr=0.1):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20))
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def train(model, optimizer, steps, accumulate=1):
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for _ in range(accumulate):
            model(torch.randn(8, 40, generator=draw)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_captures_before_the_first_step_every_n_and_at_the_end(tmp_path):
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=3, run_dir=tmp_path / "run") as monitor:
        train(model, optimizer, 7)
    assert htsr.History(tmp_path / "run").steps == [0, 3, 6, 7]
    assert monitor.step_count == 7


def test_the_last_capture_is_not_doubled(tmp_path):
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=2) as monitor:
        train(model, optimizer, 4)
    assert monitor.history.steps == [0, 2, 4]


def test_captured_spectra_are_those_of_the_weights_after_the_step():
    model, optimizer = make()
    monitor = htsr.Monitor(model, optimizer, every=1)
    for step in range(1, 4):
        train(model, optimizer, 1)
        assert np.array_equal(monitor.history.spectrum(step, "0").eigenvalues, htsr.esd(model[0].weight))


def test_training_is_not_changed():
    watched, optimizer = make()
    with htsr.Monitor(watched, optimizer, every=1):
        train(watched, optimizer, 5)
    alone, optimizer = make()
    train(alone, optimizer, 5)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))


def test_the_clock_counts_optimizer_steps_under_gradient_accumulation():
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=100) as monitor:
        train(model, optimizer, 3, accumulate=4)
    assert monitor.step_count == 3


def test_wrapped_optimizers_are_unwrapped():
    class Wrapper:  # as accelerate's AcceleratedOptimizer: it forwards step and has no hooks of its own
        def __init__(self, optimizer):
            self.optimizer = optimizer

    model, optimizer = make()
    with htsr.Monitor(model, Wrapper(optimizer), every=1) as monitor:
        train(model, optimizer, 2)
    assert monitor.history.steps == [0, 1, 2]


def test_close_lets_go_of_the_optimizer():
    model, optimizer = make()
    monitor = htsr.Monitor(model, optimizer, every=1)
    monitor.close()
    train(model, optimizer, 2)
    assert monitor.step_count == 0


def test_htmuon_and_its_settings_are_recorded():
    model, _ = make()
    optimizer = HTMuon(parameter_groups(model), lr=0.02, power=0.25)
    with htsr.Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 1)
        optimizer.param_groups[0]["power"] = 0.5
        train(model, optimizer, 1)
    matrices = monitor.history.groups.query("group == 0")
    assert list(matrices["power"]) == [0.25, 0.25, 0.5]
    assert set(matrices["algorithm"]) == {"htmuon"}


@pytest.mark.parametrize(
    ("log_layers", "named"),
    [(False, set()), (True, {"0", "2"}), ("0", {"0"}), (["re:2$", "20x30"], {"2"}), ("*", {"0", "2"})],
)
def test_log_gets_medians_and_the_layers_that_somebody_asked_for(log_layers, named):
    model, optimizer = make()
    seen = []
    with htsr.Monitor(
        model, optimizer, every=2, log=lambda metrics, step: seen.append((step, dict(metrics))), log_layers=log_layers
    ) as monitor:
        train(model, optimizer, 2)
    assert [step for step, _ in seen] == [0, 2]
    metrics = seen[-1][1]
    assert metrics["htsr/alpha/median"] == monitor.history.alpha().loc[2].median()
    assert metrics["htsr/update_rms/group0"] == monitor.history.groups.query("step == 2")["update_rms"].item()
    assert {tag.split("/")[-1] for tag in metrics} == {"median", "group0"} | named
    for name in named:
        assert metrics[f"htsr/alpha/{name}"] == monitor.history.alpha().loc[2, name]
    assert all(isinstance(value, float) for value in metrics.values())


def test_layers_to_log_that_match_nothing_are_refused(tmp_path):
    with pytest.raises(htsr.InputError, match="matches none of the 2 layers"):
        htsr.Monitor(make()[0], run_dir=tmp_path / "run", log_layers="encoder.*")
    assert not (tmp_path / "run").exists()


def test_scalars_are_kept_by_step():
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=10) as monitor:
        monitor.record(held_out=3.0)
        train(model, optimizer, 1)
        monitor.record(loss=2.0)
        monitor.record(held_out=torch.tensor(2.5))
    scalars = monitor.history.scalars.set_index("step")
    assert scalars.loc[0, "held_out"] == 3
    assert scalars.loc[1].to_dict() == {"held_out": 2.5, "loss": 2.0}


def test_a_failing_log_ends_nothing(caplog, tmp_path):
    model, optimizer = make()
    calls = []

    def log(metrics, step):
        calls.append(step)
        if step != 2:
            raise ConnectionError("tracker is down")

    with htsr.Monitor(model, optimizer, every=1, log=log, run_dir=tmp_path / "run") as monitor:
        train(model, optimizer, 3)
    assert calls == [0, 1, 2, 3]
    assert monitor.failed == [(step, "log: ConnectionError: tracker is down") for step in (0, 1, 3)]
    assert caplog.text.count("log at step 0 failed") == 1
    assert "log at step 1 failed" not in caplog.text  # one report of one trouble
    assert monitor.history.steps == [0, 1, 2, 3]


def test_a_vanished_directory_does_not_end_the_training(tmp_path):
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=1, run_dir=tmp_path / "run") as monitor:
        (tmp_path / "run").rename(tmp_path / "gone")
        train(model, optimizer, 1)
        monitor.record(loss=1.0)
        (tmp_path / "gone").rename(tmp_path / "run")
    assert [message.split(":")[0] for _, message in monitor.failed] == ["capture", "record"]
    assert monitor.history.steps == [0, 1]  # close() made up for it


@pytest.mark.parametrize(("model", "optimizer"), [({"a": 1}, None), (nn.Linear(2, 2), "adam")])
def test_what_cannot_be_watched_is_refused_at_once(model, optimizer, tmp_path):
    with pytest.raises(TypeError, match="expected a torch"):
        htsr.Monitor(model, optimizer, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_layer_that_becomes_nan_is_a_failed_row():
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=1) as monitor:
        with torch.no_grad():
            model[0].weight[0, 0] = float("nan")
        monitor.step()
    rows = monitor.history.details.query("step == 1").set_index("name")
    assert list(rows["status"]) == ["failed", "success"]


def test_a_used_directory_is_continued(tmp_path):
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=2, run_dir=tmp_path):
        train(model, optimizer, 6)
    with htsr.Monitor(model, optimizer, every=2, run_dir=tmp_path, first_step=4):
        train(model, optimizer, 4)
    history = htsr.History(tmp_path)
    assert history.steps == [0, 2, 4, 6, 8]
    with htsr.Monitor(model, optimizer, every=2, run_dir=tmp_path, first_step=2):
        assert history.steps == [0, 2]  # 4, 6 and 8 belong to a run that was abandoned
        train(model, optimizer, 2)
    assert history.steps == [0, 2, 4]
    history = htsr.History(tmp_path)
    assert np.array_equal(history.spectrum(4, "0").eigenvalues, htsr.esd(model[0].weight))


@pytest.mark.parametrize(
    ("setting", "value", "error"), [("every", 0, ValueError), ("first_step", -1, ValueError), ("every", 1.5, TypeError)]
)
def test_bad_settings_are_errors(setting, value, error):
    with pytest.raises(error, match=f"{setting}={value}"):
        htsr.Monitor(make()[0], **{setting: value})


@pytest.mark.parametrize("watched", [True, False])
def test_repr_says_step_captures_and_directory(tmp_path, watched):
    model, optimizer = make()
    monitor = htsr.Monitor(model, optimizer if watched else None, every=2, run_dir=tmp_path / "run")
    assert repr(monitor) == f"Monitor(Sequential, step=0, captures=1, run_dir={str(tmp_path / 'run')!r})"
    for _ in range(3):
        train(model, optimizer, 1)
        if not watched:
            monitor.step()
    assert "step=3, captures=2" in repr(monitor)
    monitor.close()
    assert "step=3, captures=3" in repr(monitor)


def test_nothing_is_written_when_the_layers_are_wrong(tmp_path):
    with pytest.raises(htsr.InputError, match="matches none of the 2 layers"):
        htsr.Monitor(make()[0], run_dir=tmp_path / "run", layers="encoder.*")
    assert not (tmp_path / "run").exists()


def test_a_temporary_run_lives_as_long_as_its_history():
    monitor = htsr.Monitor(make()[0])
    history, run_dir = monitor.history, monitor.run_dir
    del monitor
    gc.collect()
    assert history.steps == [0]
    del history
    gc.collect()
    assert not run_dir.exists()


# Forks a training for each moment, since a new interpreter would take seconds to import torch.
KILL_AT_RANDOM = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch, htsr
torch.set_num_threads(1)
draw = random.Random(int(sys.argv[3]))
total = 0
for number in range(int(sys.argv[2])):
    run_dir = Path(sys.argv[1]) / f"run-{number}"
    told_end, tell_end = os.pipe()
    child = os.fork()
    if child == 0:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(90, 60), torch.nn.Linear(60, 40))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        log = lambda metrics, step: os.write(tell_end, b"%d " % step)
        monitor = htsr.Monitor(model, optimizer, every=1, run_dir=run_dir, log=log, bulk=False)
        while True:
            model(torch.randn(8, 90)).square().mean().backward()
            optimizer.step()
            monitor.record(loss=1.0)
            os.write(tell_end, b"r%d " % monitor.step_count)
    os.close(tell_end)
    told = os.read(told_end, 100)  # the first capture is there
    time.sleep(draw.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(told_end, 1 << 16):
        told += more
    os.close(told_end)
    history = htsr.History(run_dir)
    steps = history.steps
    assert history.damaged == {}, history.damaged
    assert steps == list(range(len(steps))), steps
    assert {int(step) for step in told.split() if step.isdigit()} <= set(steps), (told, steps)
    recorded = {int(step[1:]) for step in told.split() if not step.isdigit()}
    assert recorded <= set(history.scalars["step"]), (told, history.scalars)
    assert history.damaged == {}, history.damaged
    assert history.details.groupby("step").size().tolist() == [2] * len(steps)
    assert list(history.spectra("0")) == list(history.spectra("1")) == steps
    total += len(steps)
    shutil.rmtree(run_dir)
print("captures", total)
"""


def kill_at_random(tmp_path, moments, seed):
    result = subprocess.run(
        [sys.executable, "-c", KILL_AT_RANDOM, str(tmp_path), str(moments), str(seed)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) > moments


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its trainings")
def test_kill_minus_nine_loses_nothing_that_was_told(tmp_path):
    kill_at_random(tmp_path, 4, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its trainings")
def test_kill_minus_nine_at_a_thousand_moments(tmp_path):
    """``HTSR_KILLS`` makes it another number."""
    kill_at_random(tmp_path, int(os.environ.get("HTSR_KILLS", "1000")), seed=1)


FILL_THE_DISK = """
import logging, os, resource, sys, time, torch, htsr
logging.basicConfig(stream=sys.stdout, format="LOGGED %(message)s")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(200, 150), torch.nn.Linear(150, 100))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
monitor = htsr.Monitor(model, optimizer, every=1, run_dir=sys.argv[1], background=sys.argv[2] == "background")
def steps(n):
    for _ in range(n):
        model(torch.randn(8, 200)).square().mean().backward()
        optimizer.step()
        while monitor._worker is not None and not monitor._worker._jobs.empty():
            time.sleep(0.01)
        monitor.record(loss=1.0)
steps(3)
if monitor._worker is not None:
    while len(monitor._worker._results) < monitor._worker.pending:
        time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))  # no file can grow beyond this, as on a disk that is full
steps(4)
monitor.close()
print("ENDED", monitor.step_count, len(monitor.failed))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize("mode", ["inline", "background"])
def test_a_full_disk_is_reported_once_and_the_training_goes_on(tmp_path, mode):
    run_dir = tmp_path / "run"
    result = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(run_dir), mode], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    ended = result.stdout.splitlines()[-1].split()
    assert ended[:2] == ["ENDED", "7"]
    assert int(ended[2]) >= 4
    assert result.stdout.count("LOGGED capture") == 1
    history = htsr.History(run_dir)
    assert history.steps == [0, 1, 2, 3]
    assert history.damaged == {}
    assert all(len(history.spectrum(step, "0")) == 150 for step in history.steps)
    assert not [path for path in (run_dir / "captures").iterdir() if path.name.startswith(".")]
