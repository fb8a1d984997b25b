"""What belongs to a step: its gradients, its place in a resumed run, its events."""

import errno
import threading

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from tests.training.test_watching import EVERYTHING, wait_for_results


def small(optimizer=torch.optim.SGD, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 24))
    return model, optimizer(model.parameters(), lr=0.05, **options)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 40)).square().mean().backward()
        optimizer.step()


def assert_spectrum(history, step, quantity, value):
    found = history.spectrum(step, "0", quantity).eigenvalues
    expected = np.sort(np.linalg.svd(value.double().numpy(), compute_uv=False) ** 2)
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-10 * expected[-1])


@pytest.mark.parametrize("background", [False, True])
def test_gradients_that_a_closure_computes(background):
    model, optimizer = small()
    monitor = htsr.Monitor(model, optimizer, every=1, capture=("weights", "gradients"), background=background)
    gradients = {}
    for step in (1, 2, 3):

        def closure():
            optimizer.zero_grad()
            loss = model(torch.randn(16, 40)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure) if step == 1 else optimizer.step(closure=closure)
        gradients[step] = model[0].weight.grad.clone()
        wait_for_results(monitor)  # else a capture may find no place
    monitor.close()
    for step, gradient in gradients.items():
        assert_spectrum(monitor.history, step, "gradients", gradient)


def test_a_fused_optimizer_under_a_loss_scaler():
    """It unscales gradients and leaves steps out by itself."""
    model, optimizer = small(torch.optim.AdamW, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = htsr.Monitor(model, optimizer, every=1, capture=("weights", "gradients", "updates"))
    gradients = []
    for step in range(4):
        loss = model(torch.randn(16, 40)).square().mean() * (float("inf") if step == 1 else 1)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        gradient = model[0].weight.grad / scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if step != 1:
            gradients.append(gradient)
    assert monitor.step_count == 3
    assert monitor.failed == []
    assert monitor.history.steps == [0, 1, 2, 3]
    for step, gradient in enumerate(gradients, start=1):
        assert_spectrum(monitor.history, step, "gradients", gradient)
        assert (monitor.history.details.query("step == @step and quantity == 'weights'")["distance"] > 0).all()


def test_a_step_that_is_not_run_again_keeps_all_of_its_capture(tmp_path):
    model, optimizer = small(momentum=0.9)
    first = htsr.Monitor(model, optimizer, every=5, capture=EVERYTHING, run_dir=tmp_path / "run")
    train(model, optimizer, 10)
    first.close()
    before = first.history.details
    again = htsr.Monitor(model, optimizer, every=5, capture=EVERYTHING, run_dir=tmp_path / "run", first_step=10)
    assert again.history.details.equals(before)
    train(model, optimizer, 5)
    assert again.history.steps == [0, 5, 10, 15]
    assert set(again.history.details.query("step == 15")["quantity"]) == set(EVERYTHING)
    again.close()
    (tmp_path / "run/captures/step-000000000010.npz").write_bytes(b"torn")
    htsr.Monitor(model, optimizer, every=5, run_dir=tmp_path / "run", first_step=10).close()
    assert again.history.steps == [0, 5, 10]


def test_close_does_not_take_the_gradients_of_another_step():
    model, optimizer = small(momentum=0.9)
    monitor = htsr.Monitor(model, optimizer, every=10, capture=EVERYTHING)
    train(model, optimizer, 3)
    model(torch.randn(16, 40)).square().mean().backward()
    monitor.close()
    assert set(monitor.history.details.query("step == 3")["quantity"]) == {"weights", "momentum"}
    events = monitor.history.events
    assert "gradients of no layer: no gradient: close()" in events["message"].iloc[0]


def test_a_quantity_that_no_layer_has_is_told_once():
    model, optimizer = small()
    with htsr.Monitor(model, optimizer, every=1, capture=("weights", "momentum")) as monitor:
        train(model, optimizer, 3)
    told = monitor.history.events.query("kind == 'missing'")
    assert told["step"].tolist() == [1]
    assert "momentum of no layer: no momentum: the optimizer keeps none" in told["message"].iloc[0]
    assert monitor.failed == []


def test_events_that_found_no_room_are_written_when_there_is_some(tmp_path, monkeypatch):
    model, optimizer = small()
    monitor = htsr.Monitor(model, optimizer, every=1, run_dir=tmp_path / "run")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(monitor._writer, "save", full)
        patch.setattr("htsr.training.store.writer.append_line", full)
        train(model, optimizer, 3)
    assert monitor.history.events.empty
    train(model, optimizer, 1)
    monitor.close()
    events = monitor.history.events
    assert events["kind"].tolist() == ["failed", "failed", "failed", "closed"]
    assert events["step"].tolist() == [1, 2, 3, 4]
    assert monitor.history.steps == [0, 4]


def test_events_from_several_threads_are_each_written_once(tmp_path):
    writer = htsr.Monitor(nn.Linear(40, 30), run_dir=tmp_path / "run")._writer

    def tell(thread):
        for number in range(200):
            writer.event(number, f"thread {thread}", "")

    threads = [threading.Thread(target=tell, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = htsr.History(tmp_path / "run").events
    assert events.groupby("kind")["step"].apply(list).to_list() == [list(range(200))] * 4


def test_every_change_of_phase_is_acted_on(monkeypatch):
    phases = iter(["random-like", "bulk-decay", "bulk-decay", "heavy-tailed", "rank-collapse"])
    monkeypatch.setattr("htsr.audit.layer.phase", lambda *_: htsr.audit.phases.Phase(next(phases), ""))
    monkeypatch.setattr("htsr.audit.layer.noise_test", lambda *_: None)  # it would call this one noise
    monitor = htsr.Monitor(nn.Linear(40, 30), every=1)
    seen = []
    monitor.on("phase != previous_phase", lambda monitor, verdict: seen.append(monitor.step_count))
    for _ in range(4):
        monitor.step()
    assert monitor.failed == []
    assert seen == [1, 3, 4]
