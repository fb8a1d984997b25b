"""Faults that were planted are named, and healthy steps are not."""

import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Muon

import htsr
from htsr.audit.step_columns import VERDICTS
from htsr.dynamics.verdicts import KINDS
from tests.dynamics.networks import HIDDEN, batch, hidden_and_rest, htmuon, muon_and_adamw, perceptron


@pytest.fixture
def model():
    torch.manual_seed(0)
    return perceptron()


def verdicts(model, optimizer, closure=None, **options):
    last = htsr.audit_steps(model, optimizer, closure or batch(), steps=2, **options).last
    return dict(zip(last["name"], last["verdict"], strict=True))


class ClippedUpdate(Muon):
    """Muon whose update is divided by the clip factor of the gradients, as in an old version of a framework."""

    def step(self, closure=None):
        params = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in params]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        super().step(closure)
        with torch.no_grad():
            for p, old in zip(params, before, strict=True):
                p.copy_(old + (p - old) / (norm / 0.01).clamp(min=1))


class HalvedTwice(Muon):
    """Muon whose update something makes smaller whatever the gradients are."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] /= 4
        super().step(closure)
        for group in self.param_groups:
            group["lr"] *= 4


class OtherRule(Muon):
    """Muon that says one rule and follows another."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["adjust_lr_fn"] = "match_rms_adamw"
        super().step(closure)
        for group in self.param_groups:
            group["adjust_lr_fn"] = None


def scaled(scale):
    return lambda model: scale * batch()(model)


def test_gradients_below_the_epsilon_of_muon(model):
    found = verdicts(model, muon_and_adamw(model), scaled(1e-8))
    assert [found[name] for name in HIDDEN] == ["below epsilon"] * 3
    assert set(verdicts(model, muon_and_adamw(model), scaled(1e-4)).values()) == {"as promised"}


def test_gradients_below_the_epsilon_of_adam(model):
    optimizer = AdamW(model.parameters(), eps=1e-4)
    assert set(verdicts(model, optimizer, scaled(1e-3)).values()) == {"below epsilon"}


@pytest.mark.parametrize("kind", [ClippedUpdate, HalvedTwice])
def test_updates_that_something_makes_smaller(model, kind):
    found = verdicts(model, muon_and_adamw(model, kind))
    assert {name: found[name] for name in found} == dict.fromkeys(HIDDEN, "clipped") | {"6": "as promised"}


def test_the_degree_shows_a_clip_that_hardly_bites(model):
    """Updates divided by the norm of the gradients fall as the gradients grow, however large they are."""
    audit = htsr.audit_steps(model, muon_and_adamw(model, ClippedUpdate, weight_decay=0.0), batch(), steps=1)
    assert audit["0"]["homogeneity"][0] == pytest.approx(-1, abs=0.01)


def test_an_adam_whose_update_is_made_smaller(model):
    class Smaller(AdamW):
        def step(self, closure=None):
            before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
            super().step(closure)
            with torch.no_grad():
                for p, old in zip(self.param_groups[0]["params"], before, strict=True):
                    p.copy_(old + (p - old) / 8)

    assert set(verdicts(model, Smaller(model.parameters(), weight_decay=0.0)).values()) == {"clipped"}


def test_a_rule_other_than_the_one_that_was_asked_for(model):
    audit = htsr.audit_steps(model, muon_and_adamw(model, OtherRule), batch(), steps=1)
    assert list(audit.last["verdict"]) == ["wrong rule"] * 3 + ["as promised"]
    assert "match_rms_adamw" in audit.findings["finding"][0]


@pytest.mark.parametrize("held", [True, False])
def test_a_frozen_layer(model, held):
    model[2].weight.requires_grad_(False)
    optimizer = AdamW([p for p in model.parameters() if held or p.requires_grad])
    assert verdicts(model, optimizer)["2"] == "frozen"


class HalfUsed(nn.Module):
    """A model whose second layer gets no gradient, or zeros."""

    def __init__(self, zeros):
        super().__init__()
        self.zeros = zeros
        self.used, self.unused, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.used(x) + (0 * self.unused(x) if self.zeros else 0))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda model: AdamW(model.parameters()),
        lambda model: SGD(model.parameters(), momentum=0.9),
        lambda model: Muon([model.used.weight, model.unused.weight]),
        htmuon,
    ],
    ids=["AdamW", "SGD", "Muon", "HTMuon"],
)
def test_a_layer_without_a_gradient(make, zeros):
    torch.manual_seed(0)
    model = HalfUsed(zeros)
    found = verdicts(model, make(model))
    assert found["unused"] == "no gradient"
    assert found["used"] in ("as promised", "no promise")


def test_a_layer_that_no_optimizer_holds(model):
    hidden, _ = hidden_and_rest(model)
    assert verdicts(model, SGD(hidden))["6"] == "no optimizer"


def test_an_optimizer_of_a_model_that_was_rebuilt(model):
    optimizer = AdamW(model.parameters())
    model[2] = nn.Linear(16, 64)
    found = verdicts(model, optimizer)
    assert found["2"] == "stale"
    assert found["0"] == "as promised"
    assert set(verdicts(perceptron(), optimizer).values()) == {"stale"}


def test_a_hidden_matrix_in_the_group_of_adamw(model):
    hidden, rest = hidden_and_rest(model)
    found = verdicts(model, [Muon(hidden[:2], lr=0.02), AdamW([*rest, hidden[2]])])
    assert found == {
        "0": "as promised",
        "2": "as promised",
        "4": "wrong group",
        "6": "as promised",
    }
    first = [Muon(hidden[1:], lr=0.02), AdamW([hidden[0], *rest])]  # it reads the input
    for optimizers in (first, AdamW(model.parameters())):
        assert set(verdicts(model, optimizers).values()) == {"as promised"}


@pytest.mark.parametrize(
    "make",
    [
        lambda model: muon_and_adamw(model, weight_decay=10.0)[:1],
        lambda model: [htmuon(model, weight_decay=10.0)],
        lambda model: [AdamW(model.parameters(), lr=3e-3, weight_decay=10.0)],
    ],
)
def test_weight_decay_100_times_too_large(model, make):
    assert verdicts(model, make(model))["0"] == "weight decay too large"


def test_a_learning_rate_that_a_scheduler_has_set_to_zero(model):
    optimizer = AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 2)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert set(verdicts(model, optimizer).values()) == {"lr 0"}


def test_a_tied_weight_that_two_optimizers_hold(model):
    tied = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    tied[1].weight = tied[0].weight
    found = verdicts(tied, [SGD(tied[0].parameters()), SGD([tied[1].weight, *tied[2].parameters()])])
    assert found["0"] == "tied counted twice"
    assert found["2"] == "no promise"


def test_steps_that_bfloat16_rounds_away(model):
    model = model.to(torch.bfloat16)
    assert set(verdicts(model, AdamW(model.parameters(), lr=1e-6)).values()) == {"lost to rounding"}
    assert set(verdicts(model, muon_and_adamw(model, lr=1e-5)[:1]).values()) <= {"lost to rounding", "no optimizer"}


def test_gradients_that_are_not_finite(model):
    found = verdicts(model, SGD(model.parameters(), lr=0.1), scaled(float("nan")))
    assert set(found.values()) == {"not finite"}


@pytest.mark.parametrize("world", [2])
@pytest.mark.slow
def test_ranks_that_do_not_average(world):
    """Processes that each train on their own data, with DistributedDataParallel and without it."""
    import torch.multiprocessing as mp

    with mp.Manager() as manager:
        found = manager.dict()
        mp.spawn(_audit_on_rank, (world, found), nprocs=world)
        assert found["averaged", 0] == found["averaged", 1] == {"no promise"}
        assert found["alone", 0] == found["alone", 1] == {"ranks not averaged"}


def _audit_on_rank(rank, world, found):
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 29_517, world, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    torch.manual_seed(0)
    model = perceptron()
    inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(rank))
    parallel = nn.parallel.DistributedDataParallel(model)
    for name, module in (("averaged", parallel), ("alone", model)):
        optimizer = SGD(model.parameters(), lr=0.1)
        audit = htsr.audit_steps(module, optimizer, lambda model: model(inputs).square().mean(), steps=2)
        found[name, rank] = set(audit.last["verdict"])
    dist.destroy_process_group()


def test_every_verdict_has_its_kind():
    assert list(KINDS) == [verdict for verdict in VERDICTS if verdict not in ("as promised", "no promise")]


def test_findings_say_what_is_wrong(model):
    audit = htsr.audit_steps(model, muon_and_adamw(model, ClippedUpdate), batch(), steps=2)
    assert list(audit.findings["kind"]) == ["clipped"] * 3
    assert list(audit.findings["severity"]) == ["problem"] * 3
    assert audit.findings["finding"][0].startswith("In each step clipped: the step ")
    assert audit.verdict.startswith("Clipped: ")
    assert "1 of 4 matrices were stepped as their rules promise" in audit.verdict


HEALTHY = {
    "SGD": lambda model: SGD(model.parameters(), lr=0.05, momentum=0.9),
    "AdamW": lambda model: AdamW(model.parameters(), lr=1e-3),
    "Adam": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4),
    "Muon": muon_and_adamw,
    "Muon, match_rms_adamw": lambda model: muon_and_adamw(model, adjust_lr_fn="match_rms_adamw", lr=1e-3),
    "HTMuon": htmuon,
    "HTMuon, raw": lambda model: htmuon(model, scale="raw", lr=0.03),
    "RMSprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_nothing(name):
    for seed in range(20):
        torch.manual_seed(seed)
        model = perceptron(32)
        audit = htsr.audit_steps(model, HEALTHY[name](model), batch(32, count=64), steps=10)
        assert not len(audit.findings), audit
        assert set(audit.details["verdict"]) <= {"as promised", "no promise"}, audit


@pytest.mark.slow
def test_twenty_million_parameters_take_less_than_a_minute():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(block, 6, enable_nested_tensor=False), nn.Linear(512, 1024))
    assert sum(p.numel() for p in model.parameters()) > 19e6
    inputs = torch.randn(4, 64, 512)
    start = time.process_time()
    audit = htsr.audit_steps(
        model, AdamW(model.parameters(), lr=1e-4), lambda model: model(inputs).square().mean(), steps=5
    )
    assert time.process_time() - start < 60
    assert not len(audit.findings), audit


def test_the_documentation_says_what_each_verdict_means():
    page = (Path(__file__).parents[2] / "docs" / "explanations.md").read_text(encoding="utf-8")
    told = page[page.index("## Verdicts on an optimizer's step") :]
    assert [f"- `{name}`: {meaning}" for name, meaning in VERDICTS.items()] == re.findall(
        r"^- `[\w ]+`: .*$", told, re.MULTILINE
    )
