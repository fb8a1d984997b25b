"""The state of other optimizers is refused by name before anything changes; that of Muon and AdamW is taken where it fits."""

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


ALL_OF_TORCH = [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
                and kind not in {torch.optim.Optimizer, torch.optim.Muon}]  # fmt: skip
assert len(ALL_OF_TORCH) > 12


@pytest.mark.parametrize("other", ALL_OF_TORCH)
@pytest.mark.parametrize("stepped", [True, False])
def test_the_state_of_another_optimizer_is_refused_and_nothing_changes(other, stepped):
    model = make()
    foreign = other(model.parameters(), lr=0.01)
    if stepped and other not in {torch.optim.SparseAdam, torch.optim.LBFGS}:
        step(model, foreign, 0)
    optimizer = HTMuon(model.parameters(), lr=0.01)
    step(model, optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    name = "an unknown optimizer" if other is torch.optim.SparseAdam else other.__name__
    with pytest.raises(InputError, match=rf"expected the state_dict of HTMuon, got that of .*{name}\b"):
        optimizer.load_state_dict(foreign.state_dict())
    torch.testing.assert_close(optimizer.state_dict()["state"], before["state"], rtol=0, atol=0)
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]
    step(model, optimizer, 2)


class AuxAdam(torch.optim.Optimizer):
    """The groups and the state of K. Jordan's MuonWithAuxAdam, which sorts matrices by size, largest first."""

    def __init__(self, groups):
        for group in groups:
            if group["use_muon"]:
                group["params"] = sorted(group["params"], key=lambda p: p.size(), reverse=True)
                group |= {"lr": 0.02, "momentum": 0.95, "weight_decay": 0}
            else:
                group |= {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0}
        super().__init__(groups, {})
        for number, p in enumerate(p for group in groups for p in group["params"]):
            for name in ("momentum_buffer",) if p.ndim == 2 else ("exp_avg", "exp_avg_sq"):
                self.state[p][name] = torch.full_like(p, number + 1.0)
            if p.ndim < 2:
                self.state[p]["step"] = 7


def test_momentum_and_moments_are_taken_from_groups_flagged_use_muon():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    matrices, vectors = [p for p in model.parameters() if p.ndim == 2], [p for p in model.parameters() if p.ndim == 1]
    foreign = AuxAdam([{"params": vectors, "use_muon": False}, {"params": matrices, "use_muon": True}])
    optimizer = HTMuon(model.parameters())
    optimizer.load_state_dict(foreign.state_dict())
    for p in matrices:
        assert torch.equal(optimizer.state[p]["momentum_buffer"], foreign.state[p]["momentum_buffer"])
    for p in vectors:
        assert torch.equal(optimizer.state[p]["exp_avg_sq"], foreign.state[p]["exp_avg_sq"])
        assert float(optimizer.state[p]["step"]) == 7
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert float(optimizer.state[vectors[0]]["step"]) == 8


@pytest.mark.parametrize("extra", [{"nesterov": True}, {"ns_steps": 5}])
def test_other_classes_that_flag_groups_are_refused(extra):
    model = make()
    foreign = AuxAdam([{"params": list(model.parameters()), "use_muon": True}])
    foreign.param_groups[0] |= extra
    with pytest.raises(InputError, match="got that of an unknown optimizer"):
        HTMuon(model.parameters()).load_state_dict(foreign.state_dict())


def test_the_algorithms_of_dion_are_not_taken_for_those_of_htmuon():
    model = make()
    defaults = {"lr": 0.01, "mu": 0.95, "beta1": 0.9, "beta2": 0.95, "algorithm": "muon", "step": 0, "epsilon": 1e-8}
    foreign = torch.optim.Optimizer(model.parameters(), defaults)
    with pytest.raises(InputError, match="got that of an optimizer of dion"):
        HTMuon(model.parameters()).load_state_dict(foreign.state_dict())


@pytest.mark.parametrize("named", [True, False])
def test_states_of_muon_and_of_adamw_are_taken_one_after_the_other(named):
    """The run continues as if torch.optim.AdamW had done the next step, and Muon's momentum is HTMuon's."""
    model = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 16), nn.Linear(16, 8))
    params = list(model.named_parameters())
    matrices, vectors = [item for item in params if item[1].ndim == 2], [item for item in params if item[1].ndim == 1]
    plain = (lambda items: items) if named else (lambda items: [p for _, p in items])
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-8, "weight_decay": 0.1}
    muon, adamw = torch.optim.Muon(plain(matrices), lr=0.01), torch.optim.AdamW(plain(vectors), **settings)
    step(model, muon, 0)
    step(model, adamw, 1)
    states = [muon.state_dict(), adamw.state_dict()]
    order = params[::-1] if named else params  # names say which is which
    optimizer = HTMuon(plain(order), **{**settings, "adamw_lr": 0.01})
    for whole in (states, {"muon": states[0], "adamw": states[1]}):
        with pytest.raises(
            InputError, match=r"expected the state_dict of one optimizer, got a (list|dict) without groups"
        ):
            optimizer.load_state_dict(whole)
    for state in states:
        optimizer.load_state_dict(state)
    for _, p in matrices:
        assert torch.equal(optimizer.state[p]["momentum_buffer"], muon.state[p]["momentum_buffer"])
    before = weights(model)
    step(model, optimizer, 2)
    ours = [p.detach().clone() for _, p in vectors]
    with torch.no_grad():
        for p, value in zip(model.parameters(), before, strict=True):
            p.copy_(value)
    step(model, adamw, 2)
    assert all(torch.equal(p, mine) for (_, p), mine in zip(vectors, ours, strict=True))


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
