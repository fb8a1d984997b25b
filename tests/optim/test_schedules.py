"""Schedules of the power, against numbers worked out by hand, and torch's schedulers, against torch's optimizers."""

import math
import pickle

import pytest
import torch
from torch import nn

from htsr.optim import CosinePower, HTMuon, LinearPower, StepPower
from htsr.optim.schedules import power_at


def test_linear():
    assert [LinearPower(0.5, -0.1, steps=4)(step) for step in (0, 1, 2, 4, 9)] == pytest.approx(
        [0.5, 0.35, 0.2, -0.1, -0.1]
    )


def test_cosine():
    assert [CosinePower(1.0, 0.0, steps=3)(step) for step in (0, 1, 2, 3, 9)] == pytest.approx([1, 0.75, 0.25, 0, 0])


def test_steps():
    assert [StepPower({0: 0.25, 10: 0.125, 20: 0.0})(step) for step in (0, 9, 10, 20, 99)] == [
        0.25, 0.25, 0.125, 0.0, 0.0,
    ]  # fmt: skip


def test_values_hold_after_the_last():
    assert [power_at([0.3, 0.2], step) for step in (0, 1, 2, 50)] == [0.3, 0.2, 0.2, 0.2]


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="steps >= 1, got 0"):
        LinearPower(0.5, 0.0, steps=0)
    with pytest.raises(ValueError, match=r"from step 0 on, got values for steps \[5\]"):
        StepPower({5: 0.1})


@pytest.mark.parametrize("schedule", [LinearPower, CosinePower])
def test_ends_are_exact_and_schedules_can_be_compared_and_copied(schedule):
    change = schedule(0.3, 0.1, steps=7)
    assert change(0) == 0.3
    assert change(7) == change(1000) == 0.1
    assert change == schedule(0.3, 0.1, 7) == pickle.loads(pickle.dumps(change))
    assert repr(change) == f"{schedule.__name__}(start=0.3, end=0.1, steps=7)"
    assert LinearPower(0.3, 0.1, 7) != CosinePower(0.3, 0.1, 7)
    with pytest.raises(TypeError, match="steps to be a number, got '7'"):
        schedule(0.3, 0.1, "7")
    with pytest.raises(ValueError, match="steps >= 1, got nan"):
        schedule(0.3, 0.1, math.nan)


S = torch.optim.lr_scheduler
CYCLES = {
    "one cycle": lambda o: S.OneCycleLR(o, max_lr=0.1, total_steps=12, base_momentum=0.6, max_momentum=0.9),
    "one cycle in three phases": lambda o: S.OneCycleLR(o, 0.1, total_steps=12, three_phase=True, anneal_strategy="linear"),
    "cycles": lambda o: S.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "shrinking cycles": lambda o: S.CyclicLR(o, 0.01, 0.1, 2, mode="triangular2", base_momentum=0.5, max_momentum=0.95),
}  # fmt: skip
SCHEDULERS = {
    **CYCLES,
    "no momentum": lambda o: S.OneCycleLR(o, max_lr=0.1, total_steps=12, cycle_momentum=False),
    "lambda": lambda o: S.LambdaLR(o, lambda step: 0.9**step),
    "multiplicative": lambda o: S.MultiplicativeLR(o, lambda step: 0.9),
    "step": lambda o: S.StepLR(o, 3),
    "multi-step": lambda o: S.MultiStepLR(o, [2, 5]),
    "constant": lambda o: S.ConstantLR(o, 0.5, 3),
    "linear": lambda o: S.LinearLR(o, 0.1, total_iters=5),
    "exponential": lambda o: S.ExponentialLR(o, 0.9),
    "polynomial": lambda o: S.PolynomialLR(o, 8, 2.0),
    "cosine": lambda o: S.CosineAnnealingLR(o, 5),
    "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 3),
    "sequence": lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=3), S.CosineAnnealingLR(o, 6)], [3]),
    "chain": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 2), S.ExponentialLR(o, 0.9)], optimizer=o),
    "weight averaging": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.05, anneal_epochs=4),
    "plateau": lambda o: S.ReduceLROnPlateau(o, patience=1),
}


def numbers_in_use(make_optimizer, make_scheduler):
    """Learning rates, and momenta or first betas, of the groups of an optimizer in each of 12 scheduled steps."""
    params = [nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))]
    optimizer = make_optimizer(params)
    scheduler = make_scheduler(optimizer)
    used = []
    for _ in range(11):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        used.append([(float(group["lr"]), group.get("momentum"), group["betas"][0] if "betas" in group else None)
                     for group in optimizer.param_groups])  # fmt: skip
        scheduler.step(*([1.0] if isinstance(scheduler, S.ReduceLROnPlateau) else []))
    return used


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("momentum", [0.95, 0.9])
def test_torchs_schedulers_do_to_matrices_what_they_do_to_sgd_and_to_the_rest_what_they_do_to_adamw(name, momentum):
    make = SCHEDULERS[name]
    ours = numbers_in_use(lambda ps: HTMuon(ps, lr=0.2, adamw_lr=0.1, momentum=momentum, betas=(0.9, 0.95)), make)
    sgd = numbers_in_use(lambda ps: torch.optim.SGD(ps[:1], lr=0.2, momentum=momentum), make)
    adamw = numbers_in_use(lambda ps: torch.optim.AdamW(ps[1:], lr=0.1, betas=(0.9, 0.95)), make)
    assert [(lr, m) for (lr, m, _), _ in ours] == [(lr, m) for ((lr, m, _),) in sgd]
    assert [(lr, beta) for _, (lr, _, beta) in ours] == [(lr, beta) for ((lr, _, beta),) in adamw]
    if name in CYCLES:
        assert len({m for (_, m, _), _ in ours}) > 2


@pytest.mark.parametrize("name", CYCLES)
def test_cycled_momentum_moves_the_weights_and_goes_on_after_a_resume(name, tmp_path):
    def start():
        p = nn.Parameter(torch.eye(3))
        optimizer = HTMuon([p], lr=0.01)
        return p, optimizer, CYCLES[name](optimizer)

    def go_on(p, optimizer, scheduler, steps):
        for step in steps:
            p.grad = torch.randn(3, 3, generator=torch.Generator().manual_seed(step))
            optimizer.step()
            scheduler.step()

    whole = start()
    go_on(*whole, range(4))
    torch.save([part.state_dict() for part in whole[1:]] + [whole[0].detach()], tmp_path / "c.pt")
    go_on(*whole, range(4, 9))
    resumed = start()
    *states, weight = torch.load(tmp_path / "c.pt", weights_only=True)
    with torch.no_grad():
        resumed[0].copy_(weight)
    for part, state in zip(resumed[1:], states, strict=True):
        part.load_state_dict(state)
    go_on(*resumed, range(4, 9))
    assert torch.equal(whole[0], resumed[0])


def test_a_momentum_set_by_hand_counts_and_so_do_betas_set_by_hand():
    p = nn.Parameter(torch.eye(3))
    optimizer = HTMuon([p], momentum=0.9, betas=(0.8, 0.99))
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["betas"]) == (0.9, (0.9, 0.99))
    for change, expected in (
        ({"momentum": 0.7}, 0.7),
        ({"betas": [0.6, 0.5]}, 0.6),
        ({}, 0.6),
        ({"momentum": 0.0}, 0.0),
    ):
        group |= change
        p.grad = torch.ones(3, 3)
        buffer = optimizer.state[p].get("momentum_buffer", torch.zeros(3, 3)).clone()
        optimizer.step()
        assert group["momentum"] == group["betas"][0] == expected
        torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], expected * buffer + (1 - expected))


def test_a_state_saved_before_momenta_were_joined_keeps_its_momentum():
    p = nn.Parameter(torch.eye(3))
    optimizer = HTMuon([p], momentum=0.7)
    state = optimizer.state_dict()
    del state["param_groups"][0]["last_momentum"]
    state["param_groups"][0]["betas"] = (0.9, 0.95)
    optimizer.load_state_dict(state)
    p.grad = torch.ones(3, 3)
    optimizer.step()
    assert optimizer.param_groups[0]["momentum"] == optimizer.param_groups[0]["betas"][0] == 0.7
