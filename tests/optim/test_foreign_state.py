"""The state of other optimizers is refused by name before anything changes; torch.optim.Muon's momentum is taken."""

import copy

import pytest
import torch
from torch import nn

from htsr.errors import InputError
from htsr.optim import HTMuon, parameter_groups


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64, bias=False), nn.Linear(64, 8, bias=False))


def step(model, optimizer, seed):
    draw = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(4, 32, generator=draw)).square().mean().backward()
    optimizer.step()


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


OTHERS = [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Lion
          if hasattr(torch.optim, "Lion") else torch.optim.Adadelta]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_the_state_of_another_optimizer_is_refused_and_nothing_changes(other):
    model = make()
    foreign = other(model.parameters(), lr=0.01)
    step(model, foreign, 0)
    optimizer = HTMuon(model.parameters(), lr=0.01)
    step(model, optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(InputError, match=r"expected the state_dict of HTMuon, got that of"):
        optimizer.load_state_dict(foreign.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(after["state"][i]["momentum_buffer"], before["state"][i]["momentum_buffer"]) for i in (0, 1))
    step(model, optimizer, 2)


@pytest.mark.parametrize("named", [True, False])
def test_the_momentum_of_muon_is_taken(named):
    """At p = 0 HTMuon's momentum is Muon's, so the run continues as if HTMuon had done all steps with Muon's weights."""
    model = make()
    parameters = (lambda m: m.named_parameters()) if named else (lambda m: m.parameters())
    muon = torch.optim.Muon(parameters(model), lr=0.01, momentum=0.9)
    for seed in range(3):
        step(model, muon, seed)
    optimizer = HTMuon(parameters(model), lr=0.01, power=0.0, momentum=0.9)
    optimizer.load_state_dict(muon.state_dict())
    for p in model.parameters():
        assert torch.equal(optimizer.state[p]["momentum_buffer"], muon.state[p]["momentum_buffer"])
        assert optimizer.state[p]["momentum_buffer"] is not muon.state[p]["momentum_buffer"]
    assert optimizer.param_groups[0]["momentum"] == 0.9
    step(model, optimizer, 3)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_momentum_goes_to_the_matrices_of_groups_that_hold_others_too():
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 8))
    matrices = [model[0].weight, model[1].weight]
    muon = torch.optim.Muon(matrices, lr=0.01)
    step(model, muon, 0)
    optimizer = HTMuon(parameter_groups(model, embeddings_and_head="htmuon"), lr=0.01)
    optimizer.load_state_dict(muon.state_dict())
    assert torch.equal(optimizer.state[matrices[1]]["momentum_buffer"], muon.state[matrices[1]]["momentum_buffer"])


def test_momentum_that_does_not_fit_is_refused():
    model, other = make(), nn.Linear(16, 16, bias=False)
    optimizer = HTMuon(model.parameters(), lr=0.01)
    for foreign in (
        torch.optim.Muon(other.parameters(), lr=0.01),
        torch.optim.Muon(list(model.parameters())[::-1], lr=0.01),
    ):
        for group in foreign.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        foreign.step()
        with pytest.raises(InputError, match="expected"):
            optimizer.load_state_dict(foreign.state_dict())
        assert not optimizer.state


@pytest.mark.parametrize(
    "state_dict", [{}, {"param_groups": []}, {"param_groups": 3}, {"param_groups": [{"lr": 1}], "state": {}}]
)
def test_what_is_no_state_is_refused(state_dict):
    with pytest.raises(InputError, match="expected the state_dict"):
        HTMuon(make().parameters(), lr=0.01).load_state_dict(state_dict)
