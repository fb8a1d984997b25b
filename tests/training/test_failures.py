"""Nothing in a Monitor ends a training."""

import logging
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.training.failures import MAX_LISTED, Failures
from htsr.training.store.writer import NoWriter
from tests.training.test_monitor import make, train

QUICK = {"bulk": False, "bootstrap": 0}


class Unspeakable:
    def __float__(self):
        raise KeyError("value")


@pytest.mark.parametrize(
    "value",
    [torch.rand(10), torch.rand(2, 2), "nan?", None, {"a": 1}, [1.0], np.ones(3), 1 + 2j, 10**400, Unspeakable(), object()],
)  # fmt: skip
@pytest.mark.parametrize("way", ["record", "step"])
def test_a_scalar_that_is_no_number_is_left_out(value, way, caplog):
    monitor = htsr.Monitor(make()[0], every=100, **QUICK)
    for _ in range(3):
        getattr(monitor, way)(x=value, loss=2.0)
    assert [message.split(":")[0] for _, message in monitor.failed] == ["record(x)"] * 3
    assert caplog.text.count("record(x) at step") == 1
    assert set(monitor.history.scalars) == {"step", "loss"}
    assert (monitor.history.scalars["loss"] == 2).all()
    assert monitor.history.events["kind"].tolist() == ["failed"] * 3


@pytest.mark.parametrize("name", ["self", "scalars", "name", "value", "monitor", "a b", "é", "train/loss", ""])
def test_scalars_may_have_any_other_name(name):
    monitor = htsr.Monitor(make()[0], **QUICK)
    monitor.record(**{name: 1.5})
    monitor.step(**{name: 2.5})
    assert monitor.history.scalars[name].tolist() == [1.5, 2.5]
    assert monitor.failed == []


def test_step_is_no_name_for_a_scalar():
    monitor = htsr.Monitor(make()[0], **QUICK)
    monitor.record(step=3, loss=1)
    assert "cannot be called 'step'" in monitor.failed[0][1]
    assert monitor.history.scalars.to_dict("list") == {"step": [0], "loss": [1.0]}


def test_steps_after_close_are_not_counted(caplog):
    monitor = htsr.Monitor(make()[0], every=1, **QUICK)
    monitor.step()
    monitor.close()
    for _ in range(3):
        monitor.step(held_out=1.0)
    monitor.close()
    assert monitor.step_count == 1
    assert monitor.history.steps == [0, 1]
    assert [message for _, message in monitor.failed] == [
        "step: RuntimeError: expected an open Monitor, got a step after close()"
    ] * 3
    assert caplog.text.count("step at step 1 failed") == 1
    assert monitor.history.scalars.to_dict("list") == {"step": [1], "held_out": [1.0]}


@pytest.mark.parametrize("background", [False, True])
def test_a_deleted_run_directory(tmp_path, background, caplog):
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=1, run_dir=tmp_path / "run", background=background, **QUICK) as monitor:
        train(model, optimizer, 1)
        while monitor._worker is not None and monitor._worker.pending > len(monitor._worker._results):
            pass
        shutil.rmtree(tmp_path / "run")
        for _ in range(3):
            train(model, optimizer, 1)
            monitor.record(loss=1.0)
    assert monitor.step_count == 4
    assert {message.split(":")[0] for _, message in monitor.failed} == {"capture", "record"}
    assert caplog.text.count("record at step") == 1
    assert caplog.text.count("capture at step") == 1


def add_a_layer(model):
    model.append(nn.Linear(20, 20))


def remove_a_layer(model):
    del model[2]
    model.append(nn.Identity())


def reshape_a_weight(model):
    model[2].weight.data = torch.randn(20, 15)
    model[2] = nn.Sequential(nn.Linear(30, 15), model[2])


def empty_the_model(model):
    for number in (0, 2):
        model[number] = nn.Identity()


@pytest.mark.parametrize("change", [add_a_layer, remove_a_layer, reshape_a_weight, empty_the_model])
@pytest.mark.parametrize("at", ["before the step", "during the step"])
@pytest.mark.parametrize("layers", [None, "2"])
def test_a_model_whose_layers_change(change, at, layers):
    model, optimizer = make()
    capture = ("weights", "gradients", "momentum", "updates")
    with htsr.Monitor(model, optimizer, every=1, capture=capture, layers=layers, **QUICK) as monitor:
        train(model, optimizer, 1)
        if at == "before the step":
            change(model)
        for number in range(3):
            optimizer.step(lambda number=number: change(model) if (number, at) == (0, "during the step") else None)
    assert monitor.step_count == 4
    assert monitor.history.steps[:2] == [0, 1]
    assert 4 in monitor.history.steps or monitor.failed


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("out of memory"), MemoryError(), StopIteration(), OSError(28, "")]
)
@pytest.mark.parametrize("place", ["log", "histograms", "action", "schedule", "camera", "writer"])
def test_whatever_fails_the_training_goes_on(error, place, monkeypatch, caplog):
    model, optimizer = make()

    def fail(*args, **options):
        raise error

    class Log:
        def __call__(self, metrics, step):
            if place == "log":
                fail()

        def histograms(self, spectra, step):
            if place == "histograms":
                fail()

    every = fail if place == "schedule" else 1
    monitor = htsr.Monitor(model, optimizer, every=every, log=Log(), **QUICK)
    if place == "action":
        monitor.on("N > 0", fail, every_time=True)
    if place == "camera":
        for name in ("keep_parameters", "keep_gradients", "shoot", "unstepped"):
            monkeypatch.setattr(monitor._capturer._camera, name, fail)
    if place == "writer":
        monkeypatch.setattr(monitor._writer, "save", fail)
        monkeypatch.setattr(monitor._writer, "record", fail)
    train(model, optimizer, 3)
    monitor.record(loss=1.0)
    monitor.close()
    assert monitor.step_count == 3
    assert len(monitor.failed) >= 3
    assert all(type(error).__name__ in message for _, message in monitor.failed)
    assert 1 <= caplog.text.count("failed; the training goes on") <= 2


def test_a_first_capture_that_fails_is_survived(monkeypatch):
    def fail(*args, **options):
        raise MemoryError("too large")

    model, optimizer = make()
    with monkeypatch.context() as patch:
        patch.setattr("htsr.training.capturing.analyze", fail)
        monitor = htsr.Monitor(model, optimizer, every=2, **QUICK)
    train(model, optimizer, 2)
    monitor.close()
    assert monitor.failed == [(0, "capture: MemoryError: too large")]
    assert monitor.history.steps == [2]


def test_an_endless_failure_does_not_fill_memory_or_disk():
    failures = Failures(NoWriter())
    for step in range(MAX_LISTED + 500):
        with failures.surviving("record", step):
            raise ValueError(step)
    with failures.surviving("capture", 7):
        raise ValueError(step)
    assert len(failures.listed) == MAX_LISTED + 1
    assert failures.listed[-1][0] == 7


@pytest.mark.parametrize(
    ("option", "value"), [("log", 3), ("log", "wandb"), ("run_dir", 3), ("run_dir", ["x"]), ("log_layers", 3)]
)
def test_mistakes_are_named_at_construction(option, value):
    with pytest.raises(TypeError):
        htsr.Monitor(make()[0], **{option: value})


def test_whole_numbers_of_numpy(tmp_path):
    model, optimizer = make()
    with htsr.Monitor(
        model, optimizer, every=np.int64(2), first_step=np.int64(4), run_dir=tmp_path / "run", **QUICK
    ) as monitor:
        train(model, optimizer, 2)
        monitor.record(loss=1.0)
    assert monitor.failed == []
    assert monitor.history.steps == [4, 6]


def test_a_dropped_monitor_is_told(caplog):
    model, optimizer = make()
    with caplog.at_level(logging.WARNING):
        monitor = htsr.Monitor(model, optimizer, every=1, **QUICK)
        assert "dropped" not in caplog.text
        del monitor
    assert "dropped without close()" in caplog.text
    htsr.Monitor(model, optimizer, every=1, **QUICK).close()
    assert caplog.text.count("dropped") == 1
