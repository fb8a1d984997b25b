"""LayerwiseSchedule over several optimizers: arms, groups, schedulers, resuming."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from htsr import InputError, Monitor
from htsr.optim import HTMuon, LinearPower, parameter_groups
from htsr.steering import LayerwiseSchedule, Linear, TargetAlpha
from htsr.steering.signals import Reader

WIDTH = 8
OPTIMIZERS = {
    "sgd": lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda model: AdamW(model.named_parameters(), lr=0.01, weight_decay=0.1),
    "muon": lambda model: torch.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.02, weight_decay=0.1),
    "htmuon": lambda model: HTMuon(parameter_groups(model), lr=0.02, power=0.125, weight_decay=0.1),
}
PAIRS = [(kind, setting) for kind in OPTIMIZERS for setting in ("lr", "weight_decay")] + [("htmuon", "power")]


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(layer for _ in range(5) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())))


def train(model, optimizer, steps, scheduler=None, start=0):
    for step in range(start, start + steps):
        x = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x.flip(1)).square().mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def schedule_of(optimizer, source, **settings):
    settings = {"signal": "hill", "min_eigenvalues": 1, "every": 2, "dead_band": 0} | settings
    return LayerwiseSchedule(optimizer, source, **settings)


@pytest.mark.parametrize(("kind", "setting"), PAIRS)
def test_the_uniform_arm_is_no_schedule_and_the_measured_arm_is_one(kind, setting):
    after = {}
    for arm in (None, "uniform", "measured"):
        model = make_model()
        optimizer = OPTIMIZERS[kind](model)
        if arm is not None:
            schedule_of(optimizer, model, setting=setting, arm=arm)
        train(model, optimizer, 5, ExponentialLR(optimizer, 0.9))
        after[arm] = weights(model)
    assert torch.equal(after[None], after["uniform"])
    assert not torch.equal(after[None], after["measured"])


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_splitting_groups_changes_nothing(kind):
    after = []
    for steered in (False, True):
        model = make_model()
        optimizer = OPTIMIZERS[kind](model)
        if steered:
            schedule_of(optimizer, model, map=np.ones_like)
        train(model, optimizer, 5)
        after.append(weights(model))
    assert torch.equal(*after)


@pytest.mark.parametrize("setting", ["lr", "weight_decay"])
@pytest.mark.parametrize(
    "make_scheduler",
    [
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=9),
        lambda optimizer: OneCycleLR(optimizer, max_lr=0.2, total_steps=20, cycle_momentum=False),
        lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    ],
    ids=["cosine", "one-cycle", "lambda"],
)
def test_each_layer_steps_by_its_multiplier_of_what_the_scheduler_says(setting, make_scheduler):
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.3)
    schedule = schedule_of(optimizer, model, setting=setting, every=3)
    scheduler = make_scheduler(optimizer)
    lone = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    expected_lr = make_scheduler(lone)
    for step in range(7):
        before = [p.detach().clone() for p in model.parameters()]
        factors = schedule.multipliers
        train(model, optimizer, 1, start=step)
        for (name, p), old in zip(model.named_parameters(), before, strict=True):
            factor = factors.get(name.removesuffix(".weight"), 1.0) if name.endswith("weight") else 1.0
            by_setting = {"lr": (factor, 1.0), "weight_decay": (1.0, factor)}[setting]
            lr, decay = expected_lr.get_last_lr()[0] * by_setting[0], 0.3 * by_setting[1]
            torch.testing.assert_close(p.detach(), old - lr * (p.grad + decay * old), rtol=1e-6, atol=1e-7)
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}
        assert scheduler.get_last_lr() == expected_lr.get_last_lr() * len(optimizer.param_groups)
        scheduler.step()
        lone.step()
        expected_lr.step()
    assert np.mean(list(schedule.multipliers.values())) == pytest.approx(1, abs=1e-12)
    assert len(set(schedule.multipliers.values())) == 3


@pytest.mark.parametrize(
    ("kind", "setting", "arm", "source"),
    [
        ("adamw", "lr", "measured", "model"),
        ("sgd", "weight_decay", "shuffled", "model"),
        ("htmuon", "power", "inverted", "model"),
        ("muon", "lr", "uniform", "model"),
        ("adamw", "weight_decay", "shuffled", "monitor"),
        ("htmuon", "power", "measured", "monitor in its directory"),
    ],
)
def test_a_resumed_run_is_the_run_to_the_last_bit(kind, setting, arm, source, tmp_path):
    def start(run="parts", first_step=0):
        model = make_model()
        optimizer = OPTIMIZERS[kind](model)
        watched = model
        if source != "model":
            run_dir = tmp_path / run if source.endswith("directory") else None
            watched = Monitor(
                model, optimizer, every=2, bootstrap=0, bulk=False, first_step=first_step, run_dir=run_dir
            )
        schedule = schedule_of(optimizer, watched, setting=setting, arm=arm, seed=3)
        return model, optimizer, schedule, CosineAnnealingLR(optimizer, T_max=12)

    whole = start("whole")
    train(*whole[:2], 8, whole[3])
    parts = start()
    train(*parts[:2], 4, parts[3])
    torch.save([part.state_dict() for part in parts], tmp_path / "state.pt")
    resumed = start(first_step=4)
    for part, state in zip(resumed, torch.load(tmp_path / "state.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    train(*resumed[:2], 4, resumed[3], start=4)
    assert torch.equal(weights(resumed[0]), weights(whole[0]))
    pd.testing.assert_frame_equal(resumed[2].table(), whole[2].table())
    assert whole[2].table()["step"].unique().tolist() == [0, 2, 4, 6, 8]


def test_the_target_resumes_and_moves_power_towards_it(tmp_path):
    def start():
        model = make_model()
        optimizer = OPTIMIZERS["htmuon"](model)
        return model, optimizer, schedule_of(optimizer, model, setting="power", map=TargetAlpha(2.5))

    whole = start()
    train(*whole[:2], 8)
    table = whole[2].table().set_index(["name", "step"])
    for name in whole[2].units:
        powers, signals = table.loc[name, "power"].to_list(), table.loc[name, "signal"].to_list()
        expected = 0.125
        for power, signal in zip(powers, signals, strict=True):
            expected = min(max(expected + 0.02 * (signal - 2.5), -0.25), 0.5)
            assert power == pytest.approx(expected)
    parts, resumed = start(), start()
    train(*parts[:2], 4)
    for part, other in zip(resumed, parts, strict=True):
        part.load_state_dict(copy.deepcopy(other.state_dict()))
    train(*resumed[:2], 4, start=4)
    assert torch.equal(weights(resumed[0]), weights(whole[0]))


def test_a_schedule_of_the_power_is_multiplied_and_kept():
    model = make_model()
    optimizer = HTMuon(parameter_groups(model), power=LinearPower(0.2, 0.1, steps=4))
    schedule = schedule_of(optimizer, model, setting="power", every=100)
    used = []
    optimizer.register_step_pre_hook(lambda *_: used.append([g["power"] for g in optimizer.param_groups[1:4]]))
    train(model, optimizer, 6)
    factors = list(schedule.multipliers.values())
    for step, powers in enumerate(used):
        base = max(0.2 - 0.025 * step, 0.1)
        assert powers == pytest.approx([base * factor for factor in factors])


def test_a_step_that_raises_leaves_the_groups_as_they_were():
    model = make_model()
    optimizer = OPTIMIZERS["htmuon"](model)
    schedule_of(optimizer, model)
    before = [group["lr"] for group in optimizer.param_groups]
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    with pytest.raises(ValueError, match="finite"):
        optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == before


def test_the_hooks_suffice_where_somebody_replaces_the_step():
    model = make_model()
    optimizer = OPTIMIZERS["sgd"](model)
    schedule_of(optimizer, model)
    del optimizer.step  # accelerate puts back the step that it knew
    train(model, optimizer, 1)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_a_shared_weight_is_one_unit():
    model = make_model()
    model[6] = model[2]
    schedule = schedule_of(SGD(model.parameters(), lr=0.1), model)
    assert schedule.units == ["2", "4"]
    assert schedule.left_out["6"] == "shares its weight with 2"


def test_two_schedules_share_an_optimizer():
    model = make_model()
    optimizer = OPTIMIZERS["sgd"](model)
    one = schedule_of(optimizer, model)
    two = schedule_of(optimizer, model, setting="weight_decay", arm="inverted")
    seen = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.extend(optimizer.param_groups and [dict(optimizer.param_groups[1])])
    )
    train(model, optimizer, 1)
    assert seen[0]["lr"] != 0.1
    assert seen[0]["weight_decay"] != 0.1
    assert one.units == two.units


@pytest.mark.parametrize("make_scheduler", [lambda optimizer: LambdaLR(optimizer, lambda step: 1.0), ReduceLROnPlateau])
def test_a_scheduler_that_counted_the_groups_is_refused(make_scheduler):
    model = make_model()
    optimizer = OPTIMIZERS["sgd"](model)
    scheduler = make_scheduler(optimizer)
    with pytest.raises(ValueError, match="first and the scheduler after it"):
        schedule_of(optimizer, model)
    schedule_of(optimizer, model, arm="uniform")
    assert len(scheduler.optimizer.param_groups) == 1


def test_marks_of_timms_schedulers_are_refused_and_another_optimizers_scheduler_is_not():
    model = make_model()
    other = ReduceLROnPlateau(OPTIMIZERS["sgd"](model))
    schedule_of(OPTIMIZERS["sgd"](model), model)
    assert len(other.optimizer.param_groups) == 1
    for group in (optimizer := OPTIMIZERS["sgd"](model)).param_groups:
        group["initial_lr"] = group["lr"]  # all that timm's schedulers leave
    with pytest.raises(ValueError, match="first and the scheduler after it"):
        schedule_of(optimizer, model)


class Steered(nn.Module):
    """A small GPT-like model: table, blocks with norms before their matrices, and an output layer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, WIDTH)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(WIDTH), "up": nn.Linear(WIDTH, WIDTH), "down": nn.Linear(WIDTH, WIDTH)})
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 9)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))
        self.head = nn.Linear(8, 4)


class Recurrent(nn.Module):
    """Tokens, two recurrent layers, and a Linear that no name marks."""

    def __init__(self):
        super().__init__()
        self.table, self.cell, self.out = nn.Embedding(9, WIDTH), nn.LSTM(WIDTH, WIDTH), nn.Linear(WIDTH, 9)


class HeadFirst(nn.Module):
    """What reads the input is defined last, and what gives the output first."""

    def __init__(self):
        super().__init__()
        self.head, self.body, self.stem = nn.Linear(8, 4), nn.Linear(8, 8), nn.Linear(8, 8)


class PatchesAndPlaces(nn.Module):
    """A table of places is no input layer; the patches are."""

    def __init__(self):
        super().__init__()
        self.places, self.patch_embed = nn.Embedding(9, 8), nn.ModuleDict({"proj": nn.Conv2d(3, 8, 4, 4)})
        self.blocks, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(2)), nn.Linear(8, 4)


@pytest.mark.parametrize(
    ("model", "units"),
    [
        (Steered(), ["blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"]),
        (Convolutional(), ["body.0", "body.3"]),
        (
            nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 8)),
            ["1.in_proj_weight", "1.out_proj"],
        ),
        (nn.TransformerEncoderLayer(8, 2, 16), ["self_attn.out_proj", "linear1"]),
        (Recurrent(), ["cell.weight_ih_l0", "cell.weight_hh_l0"]),
        (
            nn.ModuleDict({"cell": nn.LSTM(8, 8, 2, bidirectional=True), "out": nn.Linear(16, 4)}),
            [
                "cell.weight_hh_l0",
                "cell.weight_hh_l0_reverse",
                "cell.weight_ih_l1",
                "cell.weight_hh_l1",
                "cell.weight_ih_l1_reverse",
                "cell.weight_hh_l1_reverse",
            ],
        ),
        (nn.Sequential(*(nn.ConvTranspose2d(8, 8, 2) for _ in range(3)), nn.Conv2d(8, 3, 3)), ["1", "2"]),
        (nn.Sequential(*(nn.ConvTranspose2d(8, 8, 2) for _ in range(3))), ["1"]),
        (HeadFirst(), ["body"]),
        (PatchesAndPlaces(), ["blocks.0", "blocks.1"]),
    ],
)
def test_the_ends_are_left_out_by_role(model, units):
    schedule = schedule_of(SGD(model.parameters(), lr=0.1), model)
    assert schedule.units == units
    everything = schedule_of(SGD(model.parameters(), lr=0.1), model, ends=True)
    assert len(everything.units) > len(units)


def test_followers_and_blocks():
    model = Convolutional()
    optimizer = SGD(model.named_parameters(), lr=0.1)
    schedule_of(optimizer, model, follow=True)
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["stem.weight", "stem.bias", "head.weight", "head.bias"],
        ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"],
        ["body.3.weight", "body.3.bias"],
    ]
    model = Steered()
    schedule = schedule_of(SGD(model.parameters(), lr=0.1), model, per="block")
    assert schedule.units == ["blocks.0", "blocks.1"]
    assert sorted(schedule.multipliers.values()) == [0.5, 1.5]


def test_failed_layers_get_one_stay_out_of_the_mean_and_are_named_once(caplog):
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = schedule_of(
        optimizer,
        model,
        signal=lambda details: pd.Series([2.0, np.nan, 3.0], details.index),
        arm="shuffled",
        every=1,
    )
    assert sorted(schedule.multipliers.values()) == [0.5, 1.0, 1.5]
    assert schedule.multipliers["4"] == 1.0
    train(model, optimizer, 2)
    assert [record.message.partition(" of ")[2] for record in caplog.records] == [
        "1 of 3 units, which get the multiplier 1: 4"
    ]


def test_layers_without_decay_are_no_part_of_its_mean():
    model = make_model()
    groups = [{"params": model[2].weight, "weight_decay": 0.0}, {"params": [model[i].weight for i in (4, 6, 8)]}]
    schedule = schedule_of(
        AdamW(groups, weight_decay=0.1), model, setting="weight_decay", signal="stable_rank", ends=True
    )
    assert schedule.units == ["4", "6", "8"]
    assert "a weight decay of 0" in schedule.left_out["2"]


def test_lbfgs_is_refused():
    model = make_model()
    with pytest.raises(ValueError, match="LBFGS, which steps all layers as one"):
        schedule_of(torch.optim.LBFGS(model.parameters()), model)


@pytest.mark.parametrize("signal", ["hill", "stable_rank"])
def test_a_weight_that_is_not_finite_does_not_stop_the_training(signal):
    model = make_model()
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")
    multipliers = schedule_of(SGD(model.parameters(), lr=0.1), model, signal=signal).multipliers
    assert multipliers["4"] == 1.0
    assert sorted(multipliers.values()) == [0.5, 1.0, 1.5]


def test_noise_within_the_dead_band_does_not_steer(monkeypatch):
    signals = iter([[2.0, 3.0, 4.0], [2.3, 2.6, 4.4], [2.3, 2.3, 4.4]])

    def read(reader, model, names, *, interval):
        value = np.array(next(signals))
        return pd.DataFrame({"value": value, "low": value - 0.5, "high": value + 0.5}, index=names)

    monkeypatch.setattr(Reader, "read_model", read)
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = schedule_of(optimizer, model, every=1, dead_band=1)
    train(model, optimizer, 2)
    multipliers = [group["multiplier"].tolist() for _, group in schedule.table().groupby("step")]
    moved = Linear()([2.0, 2.3, 4.0])
    assert multipliers == [[0.5, 1.0, 1.5]] * 2 + [pytest.approx(moved / moved.mean())]


def test_signals_of_a_monitor_are_those_of_the_model():
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=5, bulk=False, bootstrap=0) as monitor:
        for signal in ("alpha", "stable_rank", "hill", lambda details: details["alpha"] + details["Q"]):
            found = schedule_of(SGD(model.parameters(), lr=0.1), monitor, signal=signal, every=None).table()
            pd.testing.assert_frame_equal(
                found, schedule_of(SGD(model.parameters(), lr=0.1), model, signal=signal, dead_band=0).table()
            )
        with pytest.raises(InputError, match="needs bulk="):
            schedule_of(optimizer, monitor, signal="alpha_excess")
    with pytest.raises(InputError, match="does not watch"):
        schedule_of(optimizer, Monitor(model, layers="2", bulk=False))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"setting": "momentum"}, "setting to be one of"),
        ({"signal": "alfa"}, "'hill' or a numeric column"),
        ({"arm": "random"}, "arm to be one of"),
        ({"mean": "harmonic"}, "mean to be"),
        ({"every": 0}, "every to be a whole number from 1 on"),
        ({"setting": "weight_decay"}, "a weight decay of 0"),
        ({"setting": "power"}, "none"),
        ({"map": TargetAlpha(3)}, "setting='power'"),
        ({"min_eigenvalues": 50}, "fewer than min_eigenvalues"),
        ({"map": lambda signal: -signal}, "multipliers >= 0"),
    ],
)
def test_wrong_arguments_are_refused(settings, message):
    model = make_model()
    with pytest.raises(ValueError, match=message):
        schedule_of(SGD(model.parameters(), lr=0.1), model, **settings)


def test_a_monitor_sees_the_steered_steps():
    model = make_model()
    optimizer = OPTIMIZERS["muon"](model)
    with Monitor(model, optimizer, every=2, bulk=False, bootstrap=0, capture=["updates", "weights"]) as monitor:
        schedule = schedule_of(optimizer, monitor)
        train(model, optimizer, 2)
        groups = monitor.history.groups
        steps = monitor.history.details.query("step == 2 and quantity == 'updates'")
    used = schedule.table().query("step == 0")["multiplier"] * 0.02
    assert groups.query("step == 2")["lr"].tolist()[1:] == pytest.approx(used.tolist())
    assert (steps["verdict"] == "as promised").all()
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}


def test_a_learning_rate_may_be_a_tensor():
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=torch.tensor(0.01))
    schedule_of(optimizer, model)
    train(model, optimizer, 3, ExponentialLR(optimizer, 0.5))
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.00125] * 4)
    assert len({id(group["lr"]) for group in optimizer.param_groups}) == 4


def test_a_removed_schedule_steers_no_more():
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = schedule_of(optimizer, model, every=1)
    schedule.remove()
    train(model, optimizer, 2)
    assert schedule.step_count == 0
    assert len(schedule.table()) == 3


def test_a_state_of_another_schedule_is_refused():
    model = make_model()
    schedule = schedule_of(SGD(model.parameters(), lr=0.1), model)
    other = schedule_of(SGD(model.parameters(), lr=0.1), model, arm="inverted")
    with pytest.raises(InputError, match="arm='measured'"):
        schedule.load_state_dict(other.state_dict())
    wider = schedule_of(SGD(model.parameters(), lr=0.1), model, map=Linear(0, 2))
    with pytest.raises(InputError, match=r"map='Linear\(low=0.5, high=1.5\)'"):
        schedule.load_state_dict(wider.state_dict())
    before = schedule.state_dict()
    with pytest.raises(InputError, match="a state without 'records'"):
        schedule.load_state_dict({key: value for key, value in before.items() if key != "records"} | {"step_count": 7})
    assert schedule.state_dict() == before


def test_two_schedules_of_one_setting_are_refused():
    model = make_model()
    optimizer = OPTIMIZERS["sgd"](model)
    first = schedule_of(optimizer, model)
    schedule_of(optimizer, model, setting="weight_decay")
    with pytest.raises(ValueError, match="whose lr no other schedule steers"):
        schedule_of(optimizer, model)
    first.remove()
    schedule_of(optimizer, model)
