"""What HTMuon says of choices that may surprise, and of mistakes that new users make."""

import logging

import pytest
import torch
from torch import nn

from htsr.optim import HTMuon, parameter_groups, parameter_roles
from htsr.optim.notices import tell_once


@pytest.fixture(autouse=True)
def _forgetful():
    tell_once.cache_clear()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 6), nn.Linear(6, 10))


def warned(caplog, call, times=2):
    with caplog.at_level(logging.WARNING, "htsr.optim"):
        for _ in range(times):
            call()
    return caplog.messages


def test_parameters_without_the_model_are_told_of_once(caplog):
    model = net()
    (message,) = warned(caplog, lambda: HTMuon(model.parameters()))
    assert "embeddings and the output layer: HTMuon(parameter_groups(model)) leaves those to AdamW" in message


def test_stacks_and_transposed_convolutions_left_to_adamw_are_told_of_once(caplog):
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Conv2d(3, 2, 2))
    model.experts = nn.Parameter(torch.zeros(2, 3, 4))
    (message,) = warned(caplog, lambda: parameter_groups(model))
    assert "(experts, 0.weight)" in message or "(0.weight, experts)" in message
    assert "4-D parameter of a ConvTranspose2d" in message
    assert "stacks=" in message


@pytest.mark.parametrize(
    "call",
    [
        lambda: HTMuon(parameter_groups(net())),
        lambda: HTMuon([{"params": net().parameters(), "algorithm": "adamw"}]),
        lambda: HTMuon([torch.zeros(3, 2)]),
    ],
)
def test_what_does_not_surprise_is_not_told(call, caplog):
    assert warned(caplog, call) == []


def test_a_step_without_any_gradient_is_told_of_once(caplog):
    model = net()
    optimizer = HTMuon(parameter_groups(model))

    def step():
        model(torch.arange(5)).sum().backward()
        optimizer.zero_grad()
        optimizer.step()

    (message,) = warned(caplog, step)
    assert "call step() after loss.backward() and before zero_grad()" in message


@pytest.mark.parametrize("make", [parameter_groups, parameter_roles])
def test_parameters_in_place_of_the_model_are_refused(make):
    with pytest.raises(TypeError, match=r"got generator: .* Pass model in place of model.parameters\(\)"):
        make(net().parameters())


def test_a_power_in_quotes_is_refused():
    with pytest.raises(TypeError, match="a number, without quotes, got '1/8'"):
        HTMuon(parameter_groups(net()), power="1/8")
