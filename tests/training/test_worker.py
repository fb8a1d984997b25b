"""A Monitor that is never closed leaves nothing behind."""

import gc
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
def test_a_forgotten_monitor_leaves_no_thread_and_no_hook(background, optimizers):
    model, _ = make()
    parts = [model[0], model[2]] if optimizers == 2 else [model]
    made = [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]
    before = len(threads())
    monitor = htsr.Monitor(model, made, every=1, background=background, bulk=False, bootstrap=0)
    assert len(threads()) == before + background
    alive, run_dir = weakref.ref(monitor), monitor.run_dir
    camera = weakref.ref(monitor._capturer._camera)
    del monitor
    gc.collect()
    assert alive() is None
    assert not any(one._optimizer_step_pre_hooks or one._optimizer_step_post_hooks for one in made)
    assert wait_until(lambda: len(threads()) == before)
    gc.collect()
    assert camera() is None
    assert not run_dir.exists()
    train(model, made[0], 2)


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_a_forgotten_worker_does_the_jobs_that_wait(waiting):
    before, done, gate = len(threads()), [], threading.Event()
    worker = Worker(3)
    worker.submit(lambda: gate.wait(30))
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
monitor = htsr.Monitor(model, optimizer, every=1, run_dir=sys.argv[1], background=sys.argv[2] == "background")
for step in range(2):
    model(torch.randn(8, 60)).square().mean().backward()
    optimizer.step()
    monitor.record(loss=1.0)
if sys.argv[3] == "dropped":
    del monitor
elif sys.argv[3] == "in a cycle":
    monitor.itself = monitor
    del monitor
elif sys.argv[3] == "raised":
    raise SystemExit(7)
print("END", time.time())
"""


@pytest.mark.parametrize("mode", ["inline", "background"])
@pytest.mark.parametrize("end", ["kept", "dropped", "in a cycle", "raised"])
def test_a_process_that_never_closes_its_monitor_ends_and_keeps_its_captures(tmp_path, mode, end):
    result = subprocess.run(
        [sys.executable, "-c", UNCLOSED, str(tmp_path / "run"), mode, end], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    ended = time.time()
    assert result.returncode == (7 if end == "raised" else 0), result.stderr
    assert "Traceback" not in result.stderr
    if end != "raised":
        assert ended - float(result.stdout.split("END")[1]) < 30
    history = htsr.History(tmp_path / "run")
    assert history.damaged == {}
    assert history.steps == [0, 1, 2]
