"""What steps did, against a float64 SVD of the same steps made by hand."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Muon, NAdam, RMSprop

import htsr
from htsr.errors import InputError
from tests.dynamics.networks import HIDDEN, batch, htmuon, muon_and_adamw, perceptron

OPTIMIZERS = {
    "SGD": lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
    "AdamW": lambda model: AdamW(model.parameters(), lr=1e-3),
    "RMSprop": lambda model: RMSprop(model.parameters()),
    "NAdam": lambda model: NAdam(model.parameters()),
    "Muon and AdamW": muon_and_adamw,
    "HTMuon": htmuon,
    "HTMuon, raw": lambda model: htmuon(model, scale="raw", power=0.25),
}


def by_hand(model, optimizers, closure, steps):
    """The updates of some steps, with the decoupled weight decay of each."""
    model, optimizers = copy.deepcopy((model, optimizers))
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    found = {}
    for step in range(1, steps + 1):
        for p in model.parameters():
            p.grad = None
        closure(model).backward()
        before = {name: p.detach().double() for name, p in model.named_parameters()}
        for optimizer in optimizers:
            optimizer.step()
        groups = {p: (type(o), group) for o in optimizers for group in o.param_groups for p in group["params"]}
        for name, p in model.named_parameters():
            kind, group = groups[p]
            decay = 0.0 if kind in (SGD, RMSprop, NAdam) else group["lr"] * group["weight_decay"]
            update = p.detach().double() - before[name] * (1 - decay)
            found[name.removesuffix(".weight"), step] = update, group["lr"], (decay * before[name]).norm()
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_size_of_a_step_is_that_of_an_svd(name):
    torch.manual_seed(0)
    model = perceptron()
    optimizer = OPTIMIZERS[name](model)
    audit = htsr.audit_steps(model, optimizer, batch(), steps=3)
    expected = by_hand(model, optimizer, batch(), 3)
    assert len(audit) == 4 * 3
    for row in audit.details.to_dict("records"):
        update, lr, decay = expected[row["name"], row["step"]]
        norm = float(torch.linalg.svdvals(update)[0])
        operator = norm * (row["n_in"] / row["n_out"]) ** 0.5
        assert row["step_per_lr"] == pytest.approx(operator / lr, rel=1e-3)
        assert row["update_operator_norm"] == pytest.approx(operator, rel=1e-3)
        assert row["update_stable_rank"] == pytest.approx(float(update.norm()) ** 2 / norm**2, rel=2e-3)
        if name not in ("RMSprop", "NAdam"):
            assert row["weight_decay_share"] == pytest.approx(float(decay / (decay + update.norm())), rel=1e-3)
    assert audit.losses[0] > audit.losses[-1]


@pytest.mark.parametrize("width", [16, 48])
@pytest.mark.parametrize(
    ("adjust", "factors"),
    [
        ("original", lambda w: (1, 1, 2)),
        ("match_rms_adamw", lambda w: (0.2 * w**0.5, 0.2 * w**0.5, 0.8 * w**0.5)),
    ],
)
def test_muon_steps_follow_the_rule_of_shapes(width, adjust, factors):
    torch.manual_seed(0)
    model = perceptron(width)
    audit = htsr.audit_steps(model, muon_and_adamw(model, adjust_lr_fn=adjust), batch(width), steps=2)
    last = audit.last.set_index("name").loc[HIDDEN]
    np.testing.assert_allclose(last["promised_step_per_lr"], 1.2025 * np.array(factors(width)))
    assert last["step_vs_promise"].between(0.8, 1.01).all()
    np.testing.assert_allclose(last["step_per_lr"], last["step_vs_promise"] * last["promised_step_per_lr"])
    assert (last["homogeneity"] == 0).all()


@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
@pytest.mark.parametrize("power", [-0.25, 0.0, 0.125, 1.0])
def test_htmuon_keeps_its_promise(scale, power):
    torch.manual_seed(0)
    model = perceptron()
    last = htsr.audit_steps(model, htmuon(model, power=power, scale=scale), batch(), steps=2).last
    np.testing.assert_allclose(last["step_vs_promise"], 1, atol=0.006)
    assert set(last["verdict"]) == {"as promised"}
    np.testing.assert_allclose(last["homogeneity"][:3], power if scale == "raw" else 0, atol=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"cautious": True},
        {"interval": 2},
        {"adjust_lr": "match_rms_adamw"},
        {"adjust_lr": "spectral"},
        {"method": "iterate"},
        {"method": "stream"},
        {"row_normalize": True},
        {"power": lambda step: 0.1 * step},
    ],
    ids=lambda settings: next(iter(settings)) + str(next(iter(settings.values())))[:8],
)
def test_htmuon_keeps_its_promise_with_other_settings(settings):
    torch.manual_seed(0)
    model = perceptron()
    details = htsr.audit_steps(model, htmuon(model, **settings), batch(), steps=3).details
    np.testing.assert_allclose(details["step_vs_promise"], 1, atol=0.02)


def test_the_decay_of_cautious_steps_is_told_from_their_update():
    """Where the signs differ, weights do not decay."""
    torch.manual_seed(0)
    model = perceptron()
    shares = [
        htsr.audit_steps(model, htmuon(model, weight_decay=decay, cautious=True), batch(), steps=1).last
        for decay in (0.0, 0.5)
    ]
    np.testing.assert_allclose(shares[0]["step_per_lr"], shares[1]["step_per_lr"], rtol=1e-4)
    assert (shares[0]["weight_decay_share"] == 0).all()
    assert (shares[1]["weight_decay_share"][:3] > 0.01).all()


class Restless(nn.Module):
    """A model with buffers and dropout, whose modes differ."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 16))
        self.frozen = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4)).eval()

    def forward(self, x):
        return self.frozen(self.body(x) * (1 + 0.01 * random.random() + 0.01 * np.random.rand()))  # noqa: NPY002


def everything(model, optimizers):
    """All that an audit must leave alone, copied."""
    states = [copy.deepcopy(one.state_dict()) for one in optimizers]
    return {
        "parameters": {name: value.clone() for name, value in model.state_dict().items()},
        "gradients": {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        "places": [id(p.grad) for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "states": states,
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
    }


def flat(value, path=""):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from flat(part, f"{path}.{number}")
    else:
        yield path, value


def both(model):
    """Muon for the matrices, AdamW for the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return [Muon(matrices, lr=0.02), AdamW([p for p in model.parameters() if p.ndim < 2])]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("make", [*(OPTIMIZERS[name] for name in OPTIMIZERS if name != "Muon and AdamW"), both])
def test_nothing_is_touched(make, seed):
    torch.manual_seed(0)
    model = Restless()
    made = make(model)
    optimizers = made if isinstance(made, list) else [made]
    closure = batch()
    for _ in range(2):  # so that there is a state
        closure(model).backward()
        for optimizer in optimizers:
            optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizers[0], 1)
    calls = []
    optimizers[0].register_step_post_hook(lambda *_: calls.append(1))
    before = dict(flat(everything(model, optimizers)))
    audit = htsr.audit_steps(model, made, closure, steps=2, seed=seed)
    after = dict(flat(everything(model, optimizers)))
    assert before.keys() == after.keys()
    for path, value in before.items():
        same = (
            torch.equal(value, after[path])
            if isinstance(value, torch.Tensor)
            else np.array_equal(value, after[path])
            if isinstance(value, np.ndarray)
            else value == after[path]
        )
        assert same, path
    assert not calls
    assert len(audit) == 3 * 2
    optimizers[0].step()
    scheduler.step()
    assert calls == [1]


def test_a_seed_makes_two_audits_the_same():
    torch.manual_seed(0)
    model = Restless()
    optimizer = AdamW(model.parameters())
    first, second = (htsr.audit_steps(model, optimizer, batch(), steps=2, seed=1).details for _ in range(2))
    assert first.equals(second)
    third = htsr.audit_steps(model, optimizer, batch(), steps=2, seed=2).details
    assert not first.equals(third)


class Experts(nn.Module):
    """Three experts in one tensor, and a router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 3)
        self.experts = nn.Parameter(torch.randn(3, 8, 16) / 4)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.einsum("be,eoi,bi->bo", self.router(x).softmax(-1), self.experts, x))


class Attentive(nn.Module):
    """Attention over a sequence of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.embed((x * 5).long().clamp(0, 10))
        return self.head(self.attention(x, x, x)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.lstm(x.view(len(x), 4, 4))[0][:, -1])


def convolutions():
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, groups=2),
        nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip


MODELS = {"experts": Experts, "attention": Attentive, "lstm": Recurrent, "convolutions": convolutions}


@pytest.mark.parametrize("optimizer", ["AdamW", "HTMuon"])
@pytest.mark.parametrize("name", MODELS)
def test_other_kinds_of_models(name, optimizer):
    torch.manual_seed(0)
    model = MODELS[name]()
    if optimizer == "HTMuon" and name == "experts":
        stepper = htsr.optim.HTMuon(htsr.optim.parameter_groups(model, stacks=("experts",)))
    else:
        stepper = OPTIMIZERS[optimizer](model)
    audit = htsr.audit_steps(model, stepper, batch(), steps=2)
    assert set(audit.details["verdict"]) == {"as promised"}, audit
    assert not len(audit.findings)
    rows = audit.last.set_index("name")
    split = optimizer == "HTMuon" and name == "attention"
    expected = {
        "experts": {"router": (3, 16), "experts[2]": (8, 16)},
        "attention": {"attention.in_proj_weight[1]": (16, 16)} if split else {"attention.in_proj_weight": (48, 16)},
        "lstm": {"lstm.weight_ih_l0": (32, 4)},
        "convolutions": {"1": (6, 9), "3": (4, 27)},
    }[name]
    for matrix, shape in expected.items():
        assert tuple(rows.loc[matrix, ["n_out", "n_in"]]) == shape
    if name == "convolutions":
        assert 0 < rows.loc["1", "alignment"] <= 1.001
    if name != "experts":
        assert (rows["activation_change_rms"].drop(["attention.out_proj"], errors="ignore") > 0).all()


@pytest.mark.parametrize("optimizer", ["AdamW", "HTMuon", "Muon and AdamW"])
def test_bfloat16(optimizer):
    torch.manual_seed(0)
    model = perceptron().to(torch.bfloat16)
    audit = htsr.audit_steps(model, OPTIMIZERS[optimizer](model), batch(), steps=2)
    assert set(audit.last["verdict"]) == {"as promised"}, audit


def test_accumulation_in_the_closure_is_that_of_the_whole_batch():
    torch.manual_seed(0)
    model = perceptron()
    inputs, targets = torch.randn(32, 16), torch.randint(0, 4, (32,))

    def accumulate(model):
        total = 0.0
        for x, y in zip(inputs.chunk(4), targets.chunk(4), strict=True):
            loss = nn.functional.cross_entropy(model(x), y) / 4
            loss.backward()
            total += loss.item()
        return total

    def whole(model):
        return nn.functional.cross_entropy(model(inputs), targets)

    parts, all_at_once = (
        htsr.audit_steps(model, SGD(model.parameters(), lr=0.1), closure).details for closure in (accumulate, whole)
    )
    np.testing.assert_allclose(parts["step_per_lr"], all_at_once["step_per_lr"], rtol=1e-4)


def test_activations_are_those_of_a_fixed_batch():
    """The change of a linear layer's output on the probe batch is that by the changes of its weights and bias."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 4))
    batches = iter(torch.randn(3, 32, 16))
    inputs = torch.randn(20, 16)
    audit = htsr.audit_steps(
        model, SGD(model.parameters(), lr=0.1), lambda model: model(next(batches)).square().mean(), steps=1,
        probe=lambda model: model(inputs),
    )  # fmt: skip
    row = audit.details.iloc[0]
    assert row["activation_rms"] == pytest.approx(model(inputs).square().mean().sqrt().item(), rel=1e-5)
    twin = copy.deepcopy(model)
    torch.manual_seed(0)
    nn.Sequential(nn.Linear(16, 4))
    batches = iter(torch.randn(3, 32, 16))
    twin(next(batches)).square().mean().backward()
    before = twin(inputs).detach()
    delta = -0.1 * twin[0].weight.grad
    SGD(twin.parameters(), lr=0.1).step()
    change = twin(inputs).detach() - before
    assert row["activation_change_rms"] == pytest.approx(float(change.square().mean().sqrt()), rel=1e-4)
    gains = (inputs @ delta.mT).norm(dim=1) / inputs.norm(dim=1) / torch.linalg.svdvals(delta)[0]
    assert row["alignment"] == pytest.approx(float(gains.square().mean().sqrt()), rel=1e-4)


def test_sparse_gradients():
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2))
    optimizers = [torch.optim.SparseAdam(model[0].parameters()), AdamW(model[1].parameters())]
    last = htsr.audit_steps(model, optimizers, lambda model: model(torch.arange(4)).square().mean(), steps=2).last
    assert list(last["verdict"]) == ["no promise", "as promised"]
    assert last["homogeneity"][0] == pytest.approx(0, abs=0.01)


def test_a_closure_that_wants_to_step_by_itself():
    torch.manual_seed(0)
    model = perceptron()
    audit = htsr.audit_steps(model, torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2), batch(), steps=2)
    assert set(audit.details["verdict"]) == {"no promise"}
    assert audit.losses[1] < audit.losses[0]


def test_wrong_arguments():
    model = perceptron()
    optimizer = AdamW(model.parameters())
    for arguments in ((model.parameters(), optimizer, batch()), (model, None, batch()), (model, optimizer, 3)):
        with pytest.raises(TypeError):
            htsr.audit_steps(*arguments)
    with pytest.raises(ValueError, match="steps"):
        htsr.audit_steps(model, optimizer, batch(), steps=0)
    with pytest.raises(InputError, match="closure's argument"):
        htsr.audit_steps(model, optimizer, lambda copy: batch()(model))
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(InputError, match="one loss"):
        htsr.audit_steps(model, optimizer, lambda model: model(torch.randn(3, 16)))
    model.lock = iter(())
    model.handle = open(__file__)
    with pytest.raises(InputError, match="copy"):
        htsr.audit_steps(model, optimizer, batch())
    model.handle.close()


def test_the_audit_in_words_and_pictures(tmp_path):
    torch.manual_seed(0)
    model = perceptron()
    audit = htsr.audit_steps(model, muon_and_adamw(model), batch(), steps=2)
    assert "All 4 matrices were stepped as their rules promise" in repr(audit)
    assert list(audit.columns) == list(audit.details)
    assert len(audit["2"]) == 2
    with pytest.raises(KeyError, match="expected one of 0, 2, 4, 6"):
        audit["2.weight"]
    assert "<table" in audit._repr_html_()
    (axes,) = audit.plot().axes
    assert len(axes.lines) == 5
    assert Muon.__name__ in audit.headline()


@pytest.mark.parametrize("share", [0.56, 0.8])
def test_a_step_of_adam_that_is_scaled_down_is_told(share):
    class Shrunk(torch.optim.AdamW):
        """AdamW whose step is made smaller afterwards."""

        @torch.no_grad()
        def step(self, closure=None):
            """Step a part of the way."""
            before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
            super().step(closure)
            for p, start in zip((p for group in self.param_groups for p in group["params"]), before, strict=True):
                p.lerp_(start, 1 - share)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    batch = torch.randn(16, 32)
    optimizer = Shrunk(model.parameters(), lr=1e-3, weight_decay=0.0)
    audit = htsr.audit_steps(model, optimizer, lambda model: model(batch).square().mean(), steps=2)
    assert set(audit.details["verdict"]) == {"clipped"}


def test_hooks_of_parameters_are_told(caplog):
    model = nn.Linear(8, 8)
    model.weight.register_hook(lambda gradient: 0 * gradient)
    batch = torch.randn(4, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    htsr.audit_steps(model, optimizer, lambda model: model(batch).square().mean(), steps=1)
    assert "parameters with such hooks (1)" in caplog.text


def test_decay_moves_a_weight_without_gradient():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    batch = torch.randn(4, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    audit = htsr.audit_steps(model, optimizer, lambda model: (0 * model[0](batch) + model[1](batch)).mean(), steps=1)
    first = audit.details.iloc[0]
    assert (first["verdict"], first["verdict_evidence"]) == (
        "no gradient",
        "its gradient is zero, and only weight decay moved it",
    )
