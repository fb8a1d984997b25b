"""Monitor: what is captured beside weights, schedules, budget, background, conditions."""

import logging
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.optim import HTMuon, parameter_groups
from htsr.training import at, every, log_spaced
from htsr.training.snapshot import Camera
from tests.training.test_monitor import make, train

EVERYTHING = ("weights", "gradients", "momentum", "updates")


def step_once(model, optimizer, seed=3):
    model(torch.randn(8, 40, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
    optimizer.step()
    gradients = [p.grad.clone() for p in model.parameters()]
    optimizer.zero_grad()
    return gradients


def wait_for_results(monitor):
    while monitor._worker is not None and monitor._worker.pending > len(monitor._worker._results):
        time.sleep(0.01)


def wait_for_room(monitor):
    while monitor._worker is not None and not monitor._worker._jobs.empty():
        time.sleep(0.01)


@pytest.mark.parametrize("background", [False, True])
def test_gradients_momentum_and_updates_are_those_of_the_step(background):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = htsr.Monitor(model, optimizer, every=1, capture=EVERYTHING, background=background)
    step_once(model, optimizer, seed=1)
    wait_for_room(monitor)
    before = [p.detach().clone() for p in model.parameters()]
    gradients = step_once(model, optimizer, seed=2)
    monitor.close()
    after = [p.detach().clone() for p in model.parameters()]
    history = monitor.history
    layers = {"0": 0, "2": 2}
    for name, place in layers.items():
        update = after[place] - before[place]
        expected = {
            "weights": after[place],
            "gradients": gradients[place],
            "momentum": optimizer.state[list(model.parameters())[place]]["momentum_buffer"],
            "updates": update,
        }
        for quantity, value in expected.items():
            found = history.spectrum(2, name, quantity).eigenvalues
            assert np.allclose(found, htsr.esd(value), rtol=1e-9, atol=0), (quantity, name)
        row = history.details.query("step == 2 and quantity == 'weights'").set_index("name").loc[name]
        assert row["distance"] == pytest.approx(torch.linalg.vector_norm(update).item(), rel=1e-5)
        assert row["relative_distance"] == pytest.approx(
            (torch.linalg.vector_norm(update) / torch.linalg.vector_norm(before[place])).item(), rel=1e-5
        )
    everything = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
    assert history.groups.query("step == 2")["update_rms"].item() == pytest.approx(
        everything.square().mean().sqrt().item(), rel=1e-5
    )
    assert history.details.query("step == 0")["quantity"].unique().tolist() == ["weights"]
    assert history.alpha("updates").index.tolist() == [1, 2]


def test_a_layer_that_is_part_of_a_parameter_is_cut_out_of_its_gradient_too():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Linear(10, 40)

    model = Fused()
    camera = Camera(model, None, None, None, ("weights",), copy=False)
    (layer,) = camera.inventory().layers
    view = model.both.weight.detach()[20:].mT
    from dataclasses import replace

    part = replace(layer, longname="both[k]", shape=(10, 20), load=lambda: view)
    parameter, cut = camera._places()(part)
    assert parameter is model.both.weight
    gradient = torch.arange(400.0).reshape(40, 10)
    assert torch.equal(cut(gradient), gradient[20:].mT)


def test_a_frozen_layer_has_no_gradient_and_the_row_says_so():
    model, _ = make()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with htsr.Monitor(model, optimizer, every=1, capture=("weights", "gradients")) as monitor:
        model(torch.randn(8, 40)).sum().backward()
        optimizer.step()
    rows = monitor.history.details.query("step == 1 and quantity == 'gradients'").set_index("name")
    assert rows.loc["0", "reason"] == "no gradient: the parameter is frozen or was not used"
    assert rows.loc["2", "num_evals"] == 20
    assert rows.loc["2", "log_norm"] == rows.loc["2", "log_norm"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "htmuon"])
@pytest.mark.parametrize(
    "options", [{"capture": EVERYTHING}, {"background": True, "capture": EVERYTHING}, {"budget": 0.5}]
)
def test_weights_and_random_state_are_bit_identical_with_and_without(optimizer, options):
    def weights(watched):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(40, 30),
            nn.Dropout(0.3),
            nn.BatchNorm1d(30),
            nn.utils.parametrizations.spectral_norm(nn.Linear(30, 20)),
        )
        kinds = {
            "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            "adam": lambda: torch.optim.AdamW(model.parameters()),
            "htmuon": lambda: HTMuon(parameter_groups(model), lr=0.02),
        }
        opt = kinds[optimizer]()
        monitor = htsr.Monitor(model, opt, every=None if "budget" in options else 1, **options) if watched else None
        for _ in range(6):
            model(torch.randn(16, 40)).square().mean().backward()
            opt.step()
            opt.zero_grad()
        if monitor is not None:
            monitor.close()
            assert not monitor.failed
        return [*model.state_dict().values(), torch.get_rng_state(), torch.tensor(torch.get_num_threads())]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_schedules():
    assert [s for s in range(1, 13) if every(4)(s)] == [4, 8, 12]
    assert [s for s in range(1, 120) if log_spaced(2, first=10)(s)] == [10, 32, 100]
    assert [s for s in range(9) if at([3, 5])(s)] == [3, 5]


@pytest.mark.parametrize("make_schedule", [every, log_spaced, lambda n: log_spaced(first=n), lambda n: at([5, n])])
def test_schedules_refuse_what_is_no_step(make_schedule):
    with pytest.raises(ValueError, match="expected a whole number from"):
        make_schedule(-1)
    for value in (1.5, "3", None):
        with pytest.raises(TypeError, match=f"expected a whole number, got .*={value!r}"):
            make_schedule(value)


def test_a_schedule_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="got none"):
        at([])
    with pytest.raises(TypeError, match="got 10"):
        at(10)


def test_a_schedule_may_be_any_function_and_may_fail():
    model, optimizer = make()

    def schedule(step):
        if step == 2:
            raise RuntimeError("no")
        return step % 2 == 1

    with htsr.Monitor(model, optimizer, every=schedule) as monitor:
        train(model, optimizer, 4)
    assert monitor.history.steps == [0, 1, 3, 4]
    assert monitor.failed == [(2, "schedule: RuntimeError: no")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget=0"), ({"budget": 1.5}, "budget=1.5"), ({"capture": ()}, r"capture=\(\)"),
        ({"capture": ("weights", "biases")}, "got capture="), ({"capture": "momentum"}, "need the optimizer"),
        ({"timeout": 0}, "timeout=0"), ({"bootstrap": 3}, "20"), ({"bootstrap": -1}, "bootstrap=-1"),
    ],
)  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        htsr.Monitor(make()[0], **options)


@pytest.mark.parametrize("option", ["every", "budget", "bootstrap", "first_step", "timeout"])
def test_options_of_the_wrong_type(option):
    with pytest.raises(TypeError, match=f"expected .*{option}.*'3'"):
        htsr.Monitor(make()[0], **{option: "3"})


def test_a_budget_is_kept(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("htsr.training.budget.time.perf_counter", lambda: clock[0])
    model, optimizer = make()

    def analyze(*args, **options):
        clock[0] += 1.0
        return htsr.analyze(*args, **options)

    monkeypatch.setattr("htsr.training.capturing.analyze", analyze)
    monitor = htsr.Monitor(model, optimizer, budget=0.1, run_dir=tmp_path)
    for _ in range(200):
        clock[0] += 0.25
        train(model, optimizer, 1)
    monitor.close()
    elapsed = clock[0]
    assert monitor.spent_seconds <= 0.1 * elapsed + 1e-9
    # the first costs 1 s; the k-th may begin once k seconds are a tenth of the time gone by
    assert len(monitor.history) == 5
    assert monitor.history.captures["seconds"].tolist() == pytest.approx([1, 21, 31, 41, 51], abs=1.3)
    assert monitor.history.events.query("kind == 'skipped'").empty


def test_steps_of_a_schedule_that_the_budget_forbids_are_recorded():
    model, optimizer = make()
    with htsr.Monitor(model, optimizer, every=1, budget=1e-9) as monitor:
        train(model, optimizer, 3)
    assert monitor.history.steps == [0]
    skipped = monitor.history.events.query("kind == 'skipped'")
    assert skipped["step"].tolist() == [1, 2, 3]
    assert skipped["message"].str.contains("budget").all()


class Gate:
    """Holds the background thread until it is opened."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        real = htsr.analyze

        def analyze(*args, **options):
            if threading.current_thread().name == "htsr-monitor":
                assert self.open.wait(30)
            return real(*args, **options)

        monkeypatch.setattr("htsr.training.capturing.analyze", analyze)


def test_the_background_thread_sees_the_weights_as_they_were(monkeypatch):
    gate = Gate(monkeypatch)
    model, optimizer = make()
    monitor = htsr.Monitor(model, optimizer, every=1, background=True)
    expected = [htsr.esd(model[0].weight)]
    wait_for_room(monitor)
    train(model, optimizer, 1)
    expected.append(htsr.esd(model[0].weight))
    train(model, optimizer, 3)
    gate.open.set()
    monitor.close()
    history = monitor.history
    for step, evals in enumerate(expected):
        assert np.array_equal(history.spectrum(step, "0").eigenvalues, evals)
    assert np.array_equal(history.spectrum(4, "0").eigenvalues, htsr.esd(model[0].weight))  # close() catches up


def test_a_full_queue_skips_and_says_so(monkeypatch):
    gate = Gate(monkeypatch)
    model, optimizer = make()
    monitor = htsr.Monitor(model, optimizer, every=1, background=True)
    wait_for_room(monitor)  # the first job is being done
    start = time.perf_counter()
    train(model, optimizer, 5)
    assert time.perf_counter() - start < 20  # nothing waited for the gate
    gate.open.set()
    monitor.close()
    assert monitor.history.steps == [0, 1, 2, 5]
    skipped = monitor.history.events.query("kind == 'skipped'")
    assert skipped["step"].tolist() == [3, 4, 5]
    assert skipped["message"].str.contains("wait for the background thread").all()


def test_trackers_and_actions_are_called_on_the_training_thread():
    model, optimizer = make()
    threads = []
    monitor = htsr.Monitor(
        model, optimizer, every=1, background=True, log=lambda m, s: threads.append(threading.current_thread())
    )
    monitor.on("N > 0", lambda m, v: threads.append(threading.current_thread()))
    train(model, optimizer, 3)
    monitor.close()
    assert len(threads) >= 3
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("background", [False, True])
def test_a_failing_analysis_never_kills_and_is_raised_at_close_only_if_asked(monkeypatch, background, caplog):
    model, optimizer = make()
    options = {"every": 1, "background": background}
    monitors = [htsr.Monitor(model, optimizer, **options, raise_at_close=raises) for raises in (False, True)]
    real = htsr.analyze

    def analyze(*args, **kwargs):
        raise MemoryError("too large")

    for monitor in monitors:  # their first captures are done
        wait_for_results(monitor)
    monkeypatch.setattr("htsr.training.capturing.analyze", analyze)
    train(model, optimizer, 2)
    for monitor in monitors:
        wait_for_results(monitor)
    monkeypatch.setattr("htsr.training.capturing.analyze", real)
    monitors[0].close()
    with pytest.raises(RuntimeError, match="2 failures while monitoring, the first: capture: MemoryError: too large"):
        monitors[1].close()
    assert monitors[0].failed == [(1, "capture: MemoryError: too large"), (2, "capture: MemoryError: too large")]
    failed = monitors[0].history.events.query("kind == 'failed'")
    assert failed["step"].tolist() == [1, 2]
    assert caplog.text.count("capture at step 1 failed") == 2  # once for each monitor
    assert "capture at step 2 failed" not in caplog.text


def test_a_condition_stops_a_training():
    model, optimizer = make()
    monitor = htsr.Monitor(model, optimizer, every=1)
    bound = monitor.history.over_steps("log_norm").loc[0].median()
    monitor.on(f"median(log_norm) < {bound}", "stop")
    steps = 0
    while not monitor.should_stop:
        train(model, optimizer, 1)
        steps += 1
        assert steps < 50
    monitor.close()
    assert monitor.history.over_steps("log_norm").median(axis=1).iloc[-1] < bound
    event = monitor.history.events.query("kind == 'condition'").iloc[0]
    assert event["step"] == steps
    assert "median(log_norm)" in event["message"]


def test_a_layer_that_collapses_in_rank_warns_once(caplog):
    model, _ = make()
    monitor = htsr.Monitor(model, every=1)
    monitor.on("hard_rank <= 2", "warn")
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        monitor.step()
        model[0].weight.copy_(torch.outer(torch.randn(30), torch.randn(40)))
        monitor.step()
        monitor.step()
        assert caplog.text.count("hard_rank <= 2: holds") == 1
        model[2].weight.copy_(torch.outer(torch.randn(20), torch.randn(30)))
        monitor.step()
    assert caplog.text.count("hard_rank <= 2: holds") == 2  # the second layer is news
    assert monitor.history.events.query("kind == 'condition'")["step"].tolist() == [2, 4]


def test_a_change_of_phase_calls_an_action():
    model, _ = make()
    saved = []
    monitor = htsr.Monitor(model, every=1)
    monitor.on("phase != previous_phase", lambda m, verdict: saved.append((m.step_count, verdict.names)))
    with torch.no_grad():
        monitor.step()
        model[0].weight.copy_(torch.outer(torch.randn(30), torch.randn(40)))
        monitor.step()
        monitor.step()
    assert saved == [(2, ("0",))]
    phases = monitor.history.over_steps("phase")["0"]
    assert phases[1] != phases[2] == phases[3]


def test_conditions_are_checked_at_once_and_actions_may_fail():
    model, _ = make()
    monitor = htsr.Monitor(model, every=1)
    with pytest.raises(htsr.InputError, match="alfa"):
        monitor.on("alfa < 2", "stop")
    with pytest.raises(ValueError, match="'stop' or 'warn'"):
        monitor.on("alpha < 2", "explode")
    with pytest.raises(TypeError, match="expected an action's name or a function, got int"):
        monitor.on("alpha < 2", 3)
    with pytest.raises(TypeError, match="expected a condition"):
        monitor.on(2, "stop")
    monitor.on("N > 0", lambda m, v: 1 / 0, every_time=True)
    monitor.step()
    monitor.step()
    assert [message for _, message in monitor.failed] == ["action: ZeroDivisionError: division by zero"] * 2
    assert monitor.history.steps == [0, 1, 2]


def test_tags_of_quantities_and_groups():
    model, optimizer = make()
    seen = {}
    with htsr.Monitor(
        model, optimizer, every=1, capture=("weights", "updates"), log=lambda m, s: seen.update({s: m}), log_layers=True
    ):
        train(model, optimizer, 1)
    assert {"htsr/alpha/median", "htsr/updates_alpha/median", "htsr/distance/0", "htsr/update_rms/group0"} <= set(
        seen[1]
    )


def test_scalars_can_come_with_a_step():
    monitor = htsr.Monitor(make()[0], every=1)
    monitor.step(loss=2.0)
    assert monitor.history.scalars.to_dict("list") == {"step": [1], "loss": [2.0]}


def test_an_interval_of_alpha():
    monitor = htsr.Monitor(nn.Linear(200, 150), bootstrap=20)
    row = monitor.history.details.iloc[0]
    assert row["alpha_low"] < row["alpha"] < row["alpha_high"]


def test_a_condition_on_a_scalar_is_judged_whenever_it_is_recorded(caplog):
    model, _ = make()
    monitor = htsr.Monitor(model, every=100, bootstrap=0, bulk=False)
    monitor.on("loss < 0.1", "stop")
    monitor.on("val_acc > 0.9 and lr < 1", "warn")
    monitor.on("forgotten > 0", "warn")
    monitor.step(loss=0.5, val_acc=0.95)
    monitor.record(loss=float("nan"))
    assert not monitor.should_stop
    with caplog.at_level(logging.WARNING):
        monitor.step(lr=0.01)
        monitor.record(loss=0.05)
        monitor.record(loss=0.04)  # it held before
        monitor.close()
    assert monitor.should_stop
    assert [text.split(";")[0] for text in caplog.messages] == [
        "step 2: val_acc > 0.9 and lr < 1: holds (val_acc is 0.95, lr is 0.01)",
        "step 2: loss < 0.1: holds (loss is 0.05)",
        "'forgotten > 0' was never judged: expected record(forgotten=...) during the training, and 'loss', 'val_acc', 'lr' was "
        "recorded",
    ]
    assert list(monitor.history.events.query("kind == 'condition'")["step"]) == [2, 2, 2]
    assert monitor.failed == []


def test_a_condition_on_layers_and_a_scalar_is_judged_at_each_capture():
    model, _ = make()
    monitor = htsr.Monitor(model, every=1, bootstrap=0, bulk=False)
    found = []
    for condition in ("N > 30 and loss < 0.1", "median(N) > 30 and loss < 0.1", "count(N > loss) > 0"):
        monitor.on(condition, lambda m, verdict: found.append((m.step_count, str(verdict))))
    monitor.step()
    assert found == []
    monitor.record(loss=0.05)
    monitor.step()
    assert [step for step, _ in found] == [2, 2, 2]
    assert found[0][1].startswith("N > 30 and loss < 0.1: holds for 1 layer: 0 (N 40, loss 0.05)")
    assert found[1][1] == "median(N) > 30 and loss < 0.1: holds (loss is 0.05, median(N) is 35)"
    monitor.record(phse=1)
    monitor.on("phse > 2", "warn")  # it was recorded, so it is no slip
    for condition, message in (
        ("median(loss) < 1", "write loss alone"),
        ("loss == 'low'", "compares a number with a text"),
        ("alpa < 2", "did you mean alpha"),
    ):
        with pytest.raises(htsr.InputError, match=message):
            monitor.on(condition, "stop")


@pytest.mark.parametrize("text", ["step_vs_promise < 0.5", "verdict == 'clipped'"])
def test_conditions_on_updates_need_updates(text):
    model = nn.Linear(12, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with htsr.Monitor(model, optimizer) as monitor, pytest.raises(htsr.InputError, match="needs updates"):
        monitor.on(text, "warn")
    with htsr.Monitor(model, optimizer, capture=("weights", "updates")) as monitor:
        monitor.on(text, "warn")
