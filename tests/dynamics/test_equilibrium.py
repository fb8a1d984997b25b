import copy
import math

import pytest
import torch
from torch import nn

import htsr
from htsr.dynamics.equilibrium import angle_of

LR, DECAY = 0.1, 0.5


def pulled(G):
    """A loss whose gradient is G wherever the weight is."""
    return lambda model: (model.weight * G).sum()


def linear(W):
    model = nn.Linear(*reversed(W.shape), bias=False).double()
    model.weight.data = W.clone()
    return model


def sgd(model, **options):
    return torch.optim.SGD(model.named_parameters(), lr=LR, weight_decay=DECAY, **options)


@pytest.fixture
def weights():
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(5, 8, generator=draw, dtype=torch.float64) for _ in range(2)]


def test_numbers_of_one_step(weights):
    W, G = weights
    model = linear(W)
    row = htsr.equilibrium(model, sgd(model), pulled(G), steps=1).details.iloc[0]
    moved = (1 - LR * DECAY) * W - LR * G
    norms = [float(torch.linalg.matrix_norm(X, 2)) for X in (moved, G)]
    time = -1 / math.log(1 - LR * DECAY)
    assert row["time_constant"] == pytest.approx(time)
    assert [row["norm"], row["update_norm"], row["limit"]] == pytest.approx([norms[0], norms[1], norms[1] / DECAY])
    assert row["share_of_limit"] == pytest.approx(DECAY * norms[0] / norms[1])
    walk = math.sqrt(LR / (DECAY * (2 - LR * DECAY))) * float(G.norm())
    assert row["share_of_walk"] == pytest.approx(float(moved.norm()) / walk)
    assert row["rotation"] == pytest.approx(math.acos(float((W * moved).sum() / W.norm() / moved.norm())))
    assert row["growth"] == pytest.approx(time * math.log(float(moved.norm() / W.norm())))


def test_updates_that_never_turn_lead_to_the_limit(weights):
    _, G = weights
    model = linear(-G / DECAY)
    row = htsr.equilibrium(model, sgd(model), pulled(G)).details.iloc[0]
    assert row["share_of_limit"] == pytest.approx(1)
    assert row["rotation"] == pytest.approx(0, abs=1e-7)
    assert row["verdict"] == "steady"


def test_a_random_walk_has_its_norm_and_its_rotation():
    torch.manual_seed(0)
    model = nn.Linear(40, 50, bias=False)
    optimizer = sgd(model)
    for _ in range(150):  # seven time constants
        model.weight.grad = torch.randn(50, 40)
        optimizer.step()
    row = htsr.equilibrium(model, optimizer, lambda m: (m.weight * torch.randn(50, 40)).sum(), steps=30).details.iloc[0]
    assert row["share_of_walk"] == pytest.approx(1, abs=0.05)
    assert row["rotation"] == pytest.approx(row["rotation_at_equilibrium"], rel=0.05)
    assert abs(row["growth"]) < 0.2


@pytest.mark.parametrize(("scale", "verdict"), [(0.3, "grows"), (1e3, "shrinks")])
def test_verdicts(weights, scale, verdict):
    W, G = weights
    model = linear(scale * W)
    found = htsr.equilibrium(model, sgd(model), pulled(G))
    assert found.details["verdict"].tolist() == [verdict]
    assert f"1 {verdict}" in repr(found)
    assert "A change of weight decay takes 19 steps to show." in repr(found)


def test_the_norm_of_muon_has_a_limit():
    torch.manual_seed(0)
    model = nn.Linear(16, 16, bias=False)
    muon = torch.optim.Muon(model.parameters(), lr=0.05, weight_decay=0.2)
    row = htsr.equilibrium(model, muon, lambda m: (m.weight * torch.randn(16, 16)).sum()).details.iloc[0]
    assert 0.68 / 0.2 < row["limit"] < 1.25 / 0.2


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), False),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), False),
        (lambda p: torch.optim.AdamW(p, weight_decay=0.0), False),
        (lambda p: torch.optim.AdamW(p, weight_decay=0.1), True),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1, decoupled_weight_decay=True), True),
    ],
)
def test_only_decoupled_decay_has_a_time_constant(weights, make, known):
    model = linear(weights[0])
    found = htsr.equilibrium(model, make(model.parameters()), pulled(weights[1]))
    row = found.details.iloc[0]
    assert math.isnan(row["time_constant"]) is not known
    assert (row["verdict"] == "no time constant") is not known
    assert row["rotation"] > 0
    assert ("No matrix has decoupled weight decay" in repr(found)) is not known


def test_nothing_is_changed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]))
    state = torch.get_rng_state()
    found = htsr.equilibrium(model, optimizer, lambda m: m(torch.randn(4, 6)).square().mean())
    assert list(found.details["name"]) == ["0.weight", "2.weight"]
    torch.testing.assert_close(
        (model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]), before, rtol=0, atol=0
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_a_history_knows_growth_and_rotation(weights):
    W, G = weights
    model = linear(W)
    optimizer = sgd(model)
    kept = [W]
    with htsr.Monitor(model, optimizer, every=1, bulk=False, bootstrap=0) as monitor:
        for _ in range(3):
            model.weight.grad = G.clone()
            optimizer.step()
            kept.append(model.weight.detach().clone())
    row = htsr.equilibrium(monitor.history, optimizer).details.iloc[0]
    a, b = kept[-2:]
    assert row["rotation"] == pytest.approx(math.acos(float((a * b).sum() / a.norm() / b.norm())), rel=1e-5)
    assert row["growth"] == pytest.approx(row["time_constant"] * math.log(float(b.norm() / a.norm())), rel=1e-5)
    assert row["norm"] == pytest.approx(float(torch.linalg.matrix_norm(b, 2)))
    with pytest.raises(htsr.InputError, match="whose groups name the parameters"):
        htsr.equilibrium(monitor.history, torch.optim.SGD(model.parameters(), lr=0.1))


def test_angles_of_tiny_steps():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([1 + 1e-5, 1e-9], dtype=torch.float64)
    assert angle_of(float(a.norm()), float(b.norm()), float((a - b).norm())) == pytest.approx(1e-9, rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Linear(2, 2), torch.optim.SGD([torch.ones(2, 2)], 0.1)), TypeError, r"expected closure\(model\)"),
        (("runs", torch.optim.SGD([torch.ones(2, 2)], 0.1)), TypeError, "a torch.nn.Module or a History, got str"),
        ((nn.Linear(2, 2), torch.optim.SGD([nn.Parameter(torch.ones(2, 2))], 0.1), pulled(1)), htsr.InputError, "found none"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        htsr.equilibrium(*arguments)


@pytest.mark.parametrize(("factor", "message"), [(float("nan"), "a finite loss"), (None, "closure gets")])
def test_a_closure_that_says_nothing_is_refused(factor, message):
    model, other, batch = nn.Linear(8, 8), nn.Linear(8, 8), torch.randn(4, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(htsr.InputError, match=message):
        htsr.equilibrium(model, optimizer, lambda m: factor * m(batch).mean() if factor else other(batch).mean())
