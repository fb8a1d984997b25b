"""A Monitor that is never closed leaves nothing behind."""

import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch

import htsr
from htsr.training.worker import Worker
from tests.training.test_monitor import make, train


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "htsr-monitor"]


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("optimizers", [1, 2])
def test_a_forgotten_monitor_leaves_no_thread_and_no_hook(background, optimizers, tmp_path):
    model, _ = make()
    parts = [model[0], model[2]] if optimizers == 2 else [model]
    made = [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]
    before = len(threads())
    run_dir = tmp_path / "run"
    monitor = htsr.Monitor(model, made, every=1, run_dir=run_dir, background=background, bulk=False, bootstrap=0)
    assert len(threads()) == before + background
    train(model, made[0], 1)
    alive, camera = weakref.ref(monitor), weakref.ref(monitor._capturer._camera)
    del monitor
    assert alive() is None
    assert not any(one._optimizer_step_pre_hooks or one._optimizer_step_post_hooks for one in made)
    assert wait_until(lambda: len(threads()) == before)
    assert camera() is None
    train(model, made[0], 2)
    assert htsr.History(run_dir).steps == [0, 1] if optimizers == 1 else [0]


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_a_forgotten_worker_does_the_jobs_that_wait(waiting):
    before, done, started, gate = len(threads()), [], threading.Event(), threading.Event()
    worker = Worker(3)
    worker.submit(lambda: (started.set(), gate.wait(30)))
    assert started.wait(30)
    for number in range(waiting):
        worker.submit(lambda number=number: done.append(number))
    del worker
    gate.set()
    assert wait_until(lambda: len(threads()) == before)
    assert done == list(range(waiting))


UNCLOSED = """
import sys, time, torch, htsr
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(60, 50), torch.nn.Linear(50, 40))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
monitor = htsr.Monitor(model, optimizer, every=1, run_dir=sys.argv[1], background=True)
for step in range(2):
    while monitor._worker.is_full:  # a full worker skips a capture
        time.sleep(0.01)
    model(torch.randn(8, 60)).square().mean().backward()
    optimizer.step()
    monitor.record(loss=1.0)
if sys.argv[2] == "dropped":
    del monitor
elif sys.argv[2] == "in a cycle":
    monitor.itself = monitor
    del monitor
elif sys.argv[2] == "raised":
    raise SystemExit(7)
"""


@pytest.mark.parametrize("end", ["kept", "dropped", "in a cycle", "raised"])
def test_a_process_that_never_closes_its_monitor_ends_and_keeps_its_captures(tmp_path, end):
    result = subprocess.run(
        [sys.executable, "-c", UNCLOSED, str(tmp_path / "run"), end], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == (7 if end == "raised" else 0), result.stderr
    assert "Traceback" not in result.stderr
    history = htsr.History(tmp_path / "run")
    assert history.damaged == {}
    assert history.steps == [0, 1, 2]
