import random

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.dynamics.coordinate_probe import Probe
from htsr.dynamics.random_state import seed_everything
from htsr.optim import HTMuon, parameter_groups

WIDTHS = (16, 32, 64)


class Sum(nn.Module):
    """One matrix that sees as many ones as the model is wide; its output is called after."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.layer = nn.Linear(width, 4, bias=False)

    def forward(self, x):
        return self.layer(x.new_ones(len(x), self.width))


def mean_output(model):
    return model(torch.zeros(3, 1)).mean()


def sgd(power):
    """The optimizer whose learning rate goes with a power of the width."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=0.01 * model.width**power)


@pytest.mark.parametrize(
    ("power", "verdict"), [(0, "grows as width^1.0"), (-1, "flat"), (-1.5, "vanishes as width^-0.5")]
)
def test_exponents_of_closed_form(power, verdict):
    """dW = -lr / 4 for each entry, so the output changes by lr * width / 4 a step."""
    check = htsr.coordinate_check(Sum, sgd(power), mean_output, widths=WIDTHS, steps=2, seeds=2)
    row = check.details.set_index("name").loc["layer"]
    assert row["change_exponent"] == pytest.approx(power + 1, abs=1e-3)
    assert row["verdict"] == verdict
    assert row["change_widest"] == pytest.approx(2 * 0.01 * 64**power * 64 / 4, rel=1e-3)
    assert list(check.details["name"]) == ["layer", "(model)"]
    measured = check.measurements
    assert len(measured) == len(WIDTHS) * 2 * 3 * 2
    assert (measured.loc[measured["step"] == 0, "change"] == 0).all()


def mlp(width):
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))


def fit_noise(model):
    return (model(torch.randn(32, 16)) - torch.randn(32, 4)).square().mean()


def test_the_learning_rate_rules_of_muon():
    """With the other layers frozen, the first steps of two rules differ by 0.2 sqrt(width) exactly."""

    def exponent(rule):
        def optimizer(model):
            model.requires_grad_(False)
            model[2].weight.requires_grad_(True)
            return HTMuon(parameter_groups(model[2:3]), lr=0.02, adjust_lr=rule)

        check = htsr.coordinate_check(mlp, optimizer, fit_noise, widths=WIDTHS, steps=1)
        return check.details.set_index("name").loc["2"]

    spectral, matched = exponent("spectral"), exponent("match_rms_adamw")
    assert matched["change_exponent"] - spectral["change_exponent"] == pytest.approx(0.5, abs=1e-3)
    assert spectral["verdict"] == "flat"
    assert matched["verdict"] == f"grows as width^{matched['change_exponent']:.1f}"


def test_layers_that_do_not_change_or_blow_up():
    def optimizer(model):
        model[0].requires_grad_(False)
        return torch.optim.SGD(model[2:].parameters(), lr=1e30)

    check = htsr.coordinate_check(mlp, optimizer, fit_noise, widths=WIDTHS, steps=3, seeds=1)
    verdicts = check.details.set_index("name")["verdict"]
    assert verdicts["0"] == "does not change"
    assert verdicts["4"] == "not finite at width 16"
    assert "; 0 does not change; " in repr(check)


def test_random_states_are_set_back():
    def drawn():
        return [torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002

    seed_everything(3)
    expected = drawn()
    seed_everything(3)
    first, second = (
        htsr.coordinate_check(mlp, lambda m: torch.optim.Adam(m.parameters()), fit_noise, widths=(8, 16), steps=1)
        for _ in range(2)
    )
    assert drawn() == expected
    assert first.details.equals(second.details)


def test_the_probe_sees_one_batch_and_changes_nothing():
    """Dropout leaves out the same units, batch normalisation does not count the pass, in-place activations do no harm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
    probe = Probe(model)
    _, start = probe.first(lambda m: m(torch.randn(6, 8)).sum())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    now = probe.again()
    assert list(now) == ["0", "1", "4", "(model)"]
    assert all(torch.equal(a, b) for name in now for a, b in zip(now[name], start[name], strict=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Twice(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.layer = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.layer.weight)

    def forward(self, x):
        self.layer(x.new_full((2, self.width), 7.0))
        return self.layer(x.new_full((2, self.width), 1.0))


def test_a_module_that_is_called_twice_counts_both_calls():
    check = htsr.coordinate_check(
        Twice, sgd(0), lambda model: model(torch.zeros(1)).sum(), widths=WIDTHS, steps=1, seeds=1
    )
    level = check.measurements.query("name == 'layer' and step == 0")["level"]
    assert level.to_numpy() == pytest.approx(np.sqrt((49 + 1) / 2))


def test_the_picture_names_what_is_not_flat():
    check = htsr.coordinate_check(Sum, sgd(0), mean_output, widths=WIDTHS, steps=1, seeds=1)
    change, level = check.plot().axes
    assert [line.get_label() for line in change.lines] == ["layer", "(model)"]
    x, y = change.lines[0].get_data()
    assert list(x) == list(WIDTHS)
    assert y == pytest.approx([0.01 * width / 4 for width in WIDTHS], rel=1e-3)
    assert level.get_xlabel() == "width"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": (16,)}, ValueError, "expected at least two widths, got 16"),
        ({"widths": (16, 0)}, ValueError, "expected a width to be a whole number from 1 on"),
        ({"steps": 0}, ValueError, "expected steps"),
        ({"make_model": lambda width: width}, TypeError, r"make_model\(16\) to return a torch.nn.Module, got int"),
        ({"make_optimizer": lambda model: None}, TypeError, "to return an optimizer, got None"),
        ({"closure": lambda model: model.layer.weight.sum()}, htsr.InputError, "to call the model that it gets"),
    ],
)
def test_what_cannot_work_is_refused(arguments, error, message):
    given = {"make_model": Sum, "make_optimizer": sgd(0), "closure": mean_output, "widths": (16, 32), **arguments}
    three = [given.pop(name) for name in ("make_model", "make_optimizer", "closure")]
    with pytest.raises(error, match=message):
        htsr.coordinate_check(*three, **given)


def test_names_must_match():
    def model(width):
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(width // 16)))

    check = htsr.coordinate_check(
        model, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), lambda m: m(torch.ones(1, m[0].in_features)).sum(),
        widths=(16, 32), steps=1, seeds=1,
    )  # fmt: skip
    assert check.unmatched == ("1",)
    assert "1 do not occur at every width (1, for instance)" in repr(check)
    assert set(check.details["name"]) == {"0", "(model)"}


class Routed(nn.Module):
    """A layer that sees only the tokens that a router sends to it."""

    def __init__(self, width):
        super().__init__()
        self.router, self.expert = nn.Linear(4, 1, bias=False), nn.Linear(4, width)

    def forward(self, x):
        scores = self.router(x)
        return scores + self.expert(x[scores[:, 0] > 0]).sum()


def test_inputs_that_change_are_named():
    check = htsr.coordinate_check(
        Routed, lambda m: torch.optim.SGD(m.parameters(), lr=10.0), lambda m: m(torch.randn(64, 4)).square().mean(),
        widths=(4, 8), steps=1,
    )  # fmt: skip
    assert check.details.set_index("name").loc["expert", "verdict"] == "gets other inputs at each step"


def test_models_of_one_size_are_refused():
    batch = torch.randn(4, 8)
    with pytest.raises(htsr.InputError, match="72 parameters at width 16"):
        htsr.coordinate_check(
            lambda width: nn.Linear(8, 8), lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
            lambda model: model(batch).square().mean(), widths=(16, 32), seeds=1,
        )  # fmt: skip
    with pytest.raises(TypeError, match="expected make_optimizer to be a function"):
        htsr.coordinate_check(lambda width: nn.Linear(8, width), 3, lambda model: model(batch).mean(), widths=(16, 32))
