"""Several optimizers, and optimizers that do not fit the model."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.training.optimizers import Turns, labels_of

EVERYTHING = ("weights", "gradients", "momentum", "updates")
QUICK = {"bulk": False, "bootstrap": 0}


class Pair(nn.Module):
    """A generator and a discriminator."""

    def __init__(self, width=24):
        super().__init__()
        torch.manual_seed(0)
        self.g, self.d = nn.Linear(20, width), nn.Linear(width, 16)


def muon_and_adamw(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.01)


def train_together(model, optimizers, steps, accumulate=1):
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for _ in range(accumulate):
            model(torch.randn(8, 20, generator=draw)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 16))


def calls(pattern, size=None):
    """Return the training step of each call, where each letter is an optimizer."""
    optimizers = {letter: torch.optim.SGD([torch.zeros(1)]) for letter in sorted(set(pattern))}
    turns, step, steps = Turns(size or len(optimizers)), 0, []
    for letter in pattern:
        step += turns.begins_step(optimizers[letter])
        turns.take(optimizers[letter])
        steps.append(step)
    return steps


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("aaa", [1, 2, 3]),
        ("mamama", [1, 1, 2, 2, 3, 3]),
        ("abcabc", [1, 1, 1, 2, 2, 2]),
        ("dddddgddddd", [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]),
        ("gdddgddd", [1, 1, 2, 3, 4, 4, 5, 6]),
        ("mamaamama", [1, 1, 2, 2, 3, 4, 4, 5, 5]),  # a loss scaler left one call of m out
        ("mammama", [1, 1, 2, 3, 3, 4, 4]),  # or one of a
    ],
)
def test_calls_make_up_training_steps(pattern, steps):
    assert calls(pattern) == steps


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("as_sequence", [list, tuple, iter])
def test_muon_beside_adamw(accumulate, as_sequence):
    model = mlp()
    muon, adamw = muon_and_adamw(model)
    with htsr.Monitor(model, as_sequence([muon, adamw]), every=1, capture=EVERYTHING, **QUICK) as monitor:
        before = model[0].weight.detach().clone()
        train_together(model, (muon, adamw), 1, accumulate)
        after = model[0].weight.detach().clone()
        buffer = muon.state[model[0].weight]["momentum_buffer"].clone()
        train_together(model, (muon, adamw), 2, accumulate)
    assert monitor.failed == []
    history = monitor.history
    assert history.steps == [0, 1, 2, 3]
    for quantity, value in {"weights": after, "updates": after - before, "momentum": buffer}.items():
        assert np.allclose(history.spectrum(1, "0", quantity).eigenvalues, htsr.esd(value), rtol=1e-6), quantity
    assert len(history.alpha("gradients")) == 3
    groups = history.groups.query("step == 2")
    assert groups["optimizer"].tolist() == ["Muon", "AdamW"]
    assert groups["group"].tolist() == [0, 1]
    assert (groups["update_rms"] > 0).all()
    assert not (history.events["kind"] == "unstepped").any()
    assert history.about["optimizer"] == "Muon, AdamW"


def test_weights_are_bit_identical_with_several_optimizers():
    def weights(watched):
        model = mlp()
        optimizers = muon_and_adamw(model)
        monitor = htsr.Monitor(model, optimizers, every=2, capture=EVERYTHING, **QUICK) if watched else None
        train_together(model, optimizers, 5)
        if monitor is not None:
            monitor.close()
            assert monitor.failed == []
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_three_optimizers_are_told_apart_in_groups_and_tags():
    model = nn.Sequential(nn.Linear(20, 24), nn.Linear(24, 18), nn.Linear(18, 16))
    optimizers = [torch.optim.Adam(layer.parameters(), lr=10.0**-n) for n, layer in enumerate(model, start=2)]
    seen = {}
    with htsr.Monitor(
        model, optimizers, every=1, log=lambda metrics, step: seen.update({step: metrics}), **QUICK
    ) as monitor:
        train_together(model, optimizers, 3)
    assert monitor.history.steps == [0, 1, 2, 3]
    groups = monitor.history.groups.query("step == 3")
    assert groups["optimizer"].tolist() == labels_of(optimizers) == ["Adam", "Adam-2", "Adam-3"]
    assert groups["lr"].tolist() == [1e-2, 1e-3, 1e-4]
    assert {"htsr/update_rms/Adam/group0", "htsr/update_rms/Adam-3/group2"} <= set(seen[3])


@pytest.mark.parametrize("ratio", [1, 2, 5])
@pytest.mark.parametrize("generator_first", [True, False])
def test_a_gan_makes_as_many_steps_as_its_discriminator(ratio, generator_first):
    model = Pair()
    g, d = (torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9) for part in (model.g, model.d))
    gradients, steps = {}, []

    def step(optimizer, layer):
        optimizer.zero_grad()
        layer(torch.randn(8, layer.in_features)).square().mean().backward()
        optimizer.step()
        gradients[monitor.step_count, layer.in_features] = layer.weight.grad.clone()
        optimizer.zero_grad()

    monitor = htsr.Monitor(model, [g, d], every=1, capture=EVERYTHING, **QUICK)
    for _ in range(3):
        if generator_first:
            step(g, model.g)
        for _ in range(ratio):
            step(d, model.d)
            steps.append(monitor.step_count)
        if not generator_first:
            step(g, model.g)
    monitor.close()
    assert monitor.failed == []
    assert steps == list(range(1, 3 * ratio + 1))
    history = monitor.history
    assert history.steps == list(range(3 * ratio + 1))
    rows = history.details.query("quantity == 'gradients'").set_index(["step", "name"])
    for (step_count, inputs), gradient in gradients.items():
        name = "g" if inputs == 20 else "d"
        found = history.spectrum(step_count, name, "gradients").eigenvalues
        assert np.allclose(found, htsr.esd(gradient), rtol=1e-6), (step_count, name)
    assert (rows["status"] == "failed").sum() == 3 * ratio - 3  # of the generator, where it made no step
    moved = history.over_steps("distance")
    assert moved["d"].loc[1:].notna().all()
    assert moved["g"].notna().sum() == 3


def test_closures_of_lbfgs_beside_another_optimizer():
    model = Pair()
    lbfgs, sgd = torch.optim.LBFGS(model.g.parameters(), max_iter=3), torch.optim.SGD(model.d.parameters(), lr=0.1)
    inputs = torch.randn(8, 20)
    with htsr.Monitor(model, [lbfgs, sgd], every=1, capture=("weights", "gradients"), **QUICK) as monitor:
        for _ in range(3):

            def closure():
                lbfgs.zero_grad()
                loss = (model.g(inputs) - 1).square().mean()
                loss.backward()
                return loss

            lbfgs.step(closure)
            gradient = model.g.weight.grad.clone()
            sgd.zero_grad()
            model.d(model.g(inputs).detach()).square().mean().backward()
            sgd.step()
            model.g.weight.grad.zero_()
    assert monitor.failed == []
    assert monitor.history.steps == [0, 1, 2, 3]
    assert np.allclose(
        monitor.history.spectrum(3, "g", "gradients").eigenvalues, htsr.esd(gradient), rtol=1e-6, atol=1e-12
    )


def test_a_loss_scaler_that_leaves_out_one_of_two_optimizers():
    model = Pair()
    g, d = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (model.g, model.d))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with htsr.Monitor(model, [g, d], every=1, capture=EVERYTHING[:2], **QUICK) as monitor:
        for number in range(5):
            g.zero_grad()
            d.zero_grad()
            loss_g = model.g(torch.randn(8, 20)).square().mean() * (float("inf") if number == 2 else 1)
            loss_d = model.d(torch.randn(8, 24)).square().mean()
            scaler.scale(loss_g).backward()
            scaler.scale(loss_d).backward()
            scaler.step(g)
            scaler.step(d)
            scaler.update()
            assert monitor.step_count == number + 1
    assert monitor.failed == []
    assert monitor.history.steps == [0, 1, 2, 3, 4, 5]
    assert monitor.history.over_steps("distance")["g"].isna().tolist() == [True, False, False, True, False, False]


def test_a_step_that_raises_is_not_counted():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with htsr.Monitor(model, optimizer, every=1, **QUICK) as monitor:
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
        train_together(model, [optimizer], 2)
    assert monitor.history.steps == [0, 1, 2]
    assert monitor.failed == []


@pytest.mark.parametrize("which", ["only", "first", "second"])
def test_an_optimizer_of_another_model_is_refused(which, tmp_path):
    model, other = mlp(), mlp()
    stranger, own = torch.optim.AdamW(other.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"only": stranger, "first": [stranger, own], "second": [own, stranger]}[which]
    with pytest.raises(htsr.InputError, match="AdamW holds none of the parameters of Sequential"):
        htsr.Monitor(model, given, run_dir=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "error", "message"), [
    ([], ValueError, "expected an optimizer"), ("adam", TypeError, "got str"), ([None], TypeError, "got NoneType"),
    ("twice", ValueError, "same one twice"), (3, TypeError, "got int"),
])  # fmt: skip
def test_what_is_no_optimizer_is_refused(given, error, message):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(error, match=message):
        htsr.Monitor(model, [optimizer, optimizer] if given == "twice" else given, **QUICK)


def test_parameters_that_no_optimizer_holds_are_named(caplog):
    model = mlp()
    model[0].bias.requires_grad_(False)
    with caplog.at_level(logging.WARNING):
        monitor = htsr.Monitor(model, torch.optim.SGD([model[0].weight], lr=0.1), every=1, **QUICK)
    monitor.close()
    events = monitor.history.events.query("kind == 'unstepped'")
    assert events["message"].tolist() == [
        "the watched optimizers do not step 2 of the model's parameters: 2.weight, 2.bias"
    ]
    assert "2.weight, 2.bias" in caplog.text


def replace_a_layer(model, optimizer):
    model[2] = nn.Linear(24, 16)


def replace_all(model, optimizer):
    for number in (0, 2):
        model[number] = nn.Linear(model[number].in_features, model[number].out_features)


def empty_a_group(model, optimizer):
    optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"][:2]


@pytest.mark.parametrize(("change", "count"), [(replace_a_layer, 2), (replace_all, 4), (empty_a_group, 2)])
def test_parameters_that_the_optimizer_loses_are_told_once(change, count):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = htsr.Monitor(model, optimizer, every=1, capture=EVERYTHING, **QUICK)
    train_together(model, [optimizer], 1)
    change(model, optimizer)
    train_together(model, [optimizer], 3)
    monitor.close()
    assert monitor.failed == []
    assert monitor.history.steps == [0, 1, 2, 3, 4]
    events = monitor.history.events.query("kind == 'unstepped'")
    assert events["step"].tolist() == [2]
    assert f"do not step {count} of" in events["message"].item()


def test_a_group_that_counts_its_steps_does_not_disturb_the_history():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0].update(step=70, group="x")
    with htsr.Monitor(model, optimizer, every=1, **QUICK) as monitor:
        train_together(model, [optimizer], 1)
    assert monitor.history.groups[["step", "group"]].to_numpy().tolist() == [[0, 0], [1, 0]]


class Clipped(torch.optim.SGD):
    """A subclass that calls its parent's step, which runs the hooks again."""

    failing = False

    def step(self, closure=None):
        """Step, unless it shall fail within the parent's step."""
        if self.failing:
            return super().step(lambda: 1 / 0)
        return super().step(closure)


def test_a_step_within_a_step_is_one_step():
    model = mlp()
    torch.optim.SGD(model.parameters(), lr=0.1)  # torch now wraps the parent's step, too
    optimizer = Clipped(model.parameters(), lr=0.01)
    monitor = htsr.Monitor(model, optimizer, every=1, background=False, **QUICK)
    train_together(model, [optimizer], 2)
    optimizer.failing = True
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    optimizer.failing = False
    train_together(model, [optimizer], 1)
    monitor.close()
    assert monitor.history.steps == [0, 1, 2, 3]
