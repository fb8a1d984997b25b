import copy

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.dynamics.geometry_activations import incoming_activations
from htsr.dynamics.geometry_steps import MUON, Gradient
from htsr.optim import HTMuon, parameter_groups


def stable_rank(A):
    S = np.linalg.svd(np.asarray(A.detach().double()), compute_uv=False)
    return (S**2).sum() / S[0] ** 2


def test_steps_are_those_that_htmuon_takes():
    torch.manual_seed(0)
    for shape in ((12, 20), (20, 12)):
        gradient = torch.randn(shape) @ torch.diag(torch.logspace(0, -2, shape[1]))
        for power in (-0.25, 0.0, 0.5):
            step, shorter = Gradient.of(gradient).step(power)
            for scale, expected in (("match_muon", step), ("spectral", shorter * step)):
                parameter = nn.Parameter(torch.zeros(shape))
                group = {"params": [parameter], "algorithm": "htmuon"}
                optimizer = HTMuon(
                    [group], lr=0.1, power=power, momentum=0.0, nesterov=False, weight_decay=0.0, scale=scale
                )
                parameter.grad = gradient.clone()
                optimizer.step()
                torch.testing.assert_close(parameter.detach().double(), -0.1 * expected, rtol=2e-3, atol=1e-5)


def test_newton_schulz_leaves_small_directions_behind():
    """Five steps of Muon's polynomial bring what is above 1.07e-3 of the norm to a half or more."""
    values = torch.tensor([1.0, 2e-3, 1.2e-3, 1.0e-3, 0.5e-3], dtype=torch.float64)
    gradient = Gradient.of(torch.diag(values))
    assert gradient.left_behind(MUON) == pytest.approx(2 / 5)
    assert gradient.left_behind(MUON * 2) == 0
    assert gradient.nuclear_rank == pytest.approx(float(values.sum() ** 2 / values.square().sum()))


def test_directions_that_rounding_made_do_not_count():
    gradient = Gradient.of(torch.randn(30, 2) @ torch.randn(2, 40))
    assert len(gradient.S_K) == 2
    assert Gradient.of(torch.zeros(3, 3)) is None


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x)[0]


@pytest.mark.parametrize(
    ("layer", "x", "inputs"),
    [
        (nn.Linear(6, 3), torch.randn(4, 5, 6), lambda x: x.reshape(20, 6)),
        (nn.Embedding(9, 4), torch.tensor([[1, 1, 1, 8]]), lambda x: nn.functional.one_hot(x[0], 9)),
        (nn.Conv2d(3, 5, 3, padding=1, stride=2), torch.randn(2, 3, 8, 8),
         lambda x: nn.functional.unfold(x, 3, padding=1, stride=2).mT.reshape(-1, 27)),
        (nn.Conv1d(3, 5, 2), torch.randn(2, 3, 8),
         lambda x: torch.stack([x[..., :-1], x[..., 1:]], 2).flatten(1, 2).mT.reshape(-1, 6)),
        (Attention(), torch.randn(2, 5, 6), lambda x: x.reshape(10, 6)),
    ],
    ids=["linear", "embedding", "conv2d", "conv1d", "attention"],
)  # fmt: skip
def test_incoming_activations(layer, x, inputs):
    weight = layer.inner.in_proj_weight if isinstance(layer, Attention) else layer.weight
    with incoming_activations(layer) as activations:
        layer(x)
        layer(x)  # twice the same inputs have the same stable rank
    assert activations.stable_rank(weight) == pytest.approx(stable_rank(inputs(x).float()), rel=1e-4)


def test_inputs_that_nobody_knows_are_missing():
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    shared[1].weight = shared[0].weight
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    for model, x in ((shared, torch.randn(2, 4)), (grouped, torch.randn(1, 4, 5, 5))):
        with incoming_activations(model) as activations:
            model(x)
        assert np.isnan(activations.stable_rank(next(model.parameters())))


def test_decreases_of_a_quadratic_loss_are_exact():
    """Least squares has one curvature, so that the model says what a step of any size does."""
    torch.manual_seed(0)
    model = nn.Linear(8, 5, bias=False).double()
    data = [(torch.randn(40, 8).double(), torch.randn(40, 5).double()) for _ in range(3)]

    def loss(W, x, y):
        return (x @ W.T - y).square().mean()

    closures = [lambda m, x=x, y=y: loss(m.weight, x, y) for x, y in data]
    geometry = htsr.gradient_geometry(model, closures, powers=(-0.25, 0.5), lr=0.3)
    W = model.weight.detach()
    for power, of in geometry.decreases.groupby("power"):
        expected = {"frobenius": [], "spectral": []}
        for batch in range(3):
            (x, y), following = data[batch], data[(batch + 1) % 3]
            G = 2 * (x @ W.T - y).T @ x / y.numel()
            U, S, Vh = torch.linalg.svd(G, full_matrices=False)
            for kind, norm in (("frobenius", (S**power).norm() / 5**0.5), ("spectral", (S**power).max())):
                D = U @ torch.diag(S**power / norm) @ Vh
                expected[kind].append(float(loss(W, *following) - loss(W - 0.3 * D, *following)))
        for kind, values in expected.items():
            assert of[kind].item() == pytest.approx(np.mean(values), rel=1e-9)
            assert of[f"{kind}_error"].item() == pytest.approx(np.std(values, ddof=1) / 3**0.5, rel=1e-9)


@pytest.mark.parametrize("kind", ["frobenius", "spectral"])
def test_matrices_move_together_as_in_a_training_step(kind):
    """The losses are those of a dense reference; the last Linear is the output, which HTMuon leaves to AdamW."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7, bias=False), nn.Linear(7, 5, bias=False), nn.Linear(5, 3)).double()
    data = [torch.randn(20, 6).double() for _ in range(2)]

    def loss(model, x):
        return (model(x) - 1).square().mean()

    geometry = htsr.gradient_geometry(model, [lambda m, x=x: loss(m, x) for x in data], powers=(0.5,), lr=0.2)
    expected = []
    for batch in range(2):
        moved = copy.deepcopy(model)
        gradients = torch.autograd.grad(loss(moved, data[batch]), [moved[0].weight, moved[1].weight])
        for layer, G in zip(moved, gradients, strict=False):
            U, S, Vh = torch.linalg.svd(G, full_matrices=False)
            U, S, Vh = U[:, :3], S[:3], Vh[:3]  # three outputs, so that gradients have rank 3
            powers = S**0.5
            norm = powers.norm() / len(S) ** 0.5 if kind == "frobenius" else powers.max()
            layer.weight.data -= 0.2 * max(1, G.shape[0] / G.shape[1]) ** 0.5 * (U * powers / norm) @ Vh
        following = data[1 - batch]
        expected.append(float((loss(model, following) - loss(moved, following)).detach()))
    row = geometry.together[geometry.together["power"] == 0.5]
    assert row[kind].item() == pytest.approx(np.mean(expected), rel=1e-6)
    assert row[f"{kind}_error"].item() == pytest.approx(abs(expected[0] - expected[1]) / 2, rel=1e-6)


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 16), nn.Linear(16, 4)
    )


def classify(model):
    x = torch.randn(32, 12)
    return nn.functional.cross_entropy(model(x), x[:, :4].argmax(1))


def test_nothing_is_changed():
    model = classifier()
    classify(model).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    geometry = htsr.gradient_geometry(model, classify, batches=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grads[name]) for name, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert list(geometry.details["name"]) == ["0.weight", "4.weight", "5.weight"]
    assert htsr.gradient_geometry(model, classify, batches=2).details.equals(geometry.details)


@pytest.mark.parametrize(("flat", "matters"), [(True, False), (False, True)])
def test_p_matters_where_singular_values_differ(flat, matters):
    """A gradient with equal singular values is its own polar factor, so every p takes the same step."""
    model = nn.Linear(6, 6, bias=False)
    values = torch.ones(6) if flat else torch.logspace(0, -2, 6)

    def linear(m):  # its gradient is diagonal, with some noise
        noise = 0.0 if flat else 0.01
        return (m.weight.diagonal() * values).sum() + noise * (m.weight * torch.randn(6, 6)).sum()

    geometry = htsr.gradient_geometry(model, linear)
    assert bool(geometry.details["matters"].item()) is matters
    assert ("p does not matter here" in repr(geometry)) is flat
    assert f"Alone, it matters to {1 - flat} of 1 matrices." in repr(geometry)


def test_matrices_need_not_move_alone():
    both, quick = (htsr.gradient_geometry(classifier(), classify, batches=2, alone=alone) for alone in (True, False))
    assert quick.together.equals(both.together)
    assert quick.decreases["slope"].equals(both.decreases["slope"])
    assert quick.decreases["frobenius"].isna().all()
    assert "Alone" in repr(both)
    assert "Alone" not in repr(quick)


def test_a_single_batch_knows_no_noise():
    geometry = htsr.gradient_geometry(classifier(), classify, batches=1)
    assert set(geometry.details["matters"]) == {None}
    assert "Whether p matters needs several batches." in repr(geometry)
    assert set(geometry.grouping) == {"0.weight", "4.weight", "5.weight"}


def test_the_grouping_makes_parameter_groups():
    model = classifier()
    geometry = htsr.gradient_geometry(model, classify)
    grouping = {**geometry.grouping, "0.weight": "adamw", "5.weight": "htmuon"}
    groups = parameter_groups(model, geometry=grouping)
    found = {name: group["algorithm"] for group in groups for name, _ in group["params"]}
    assert {name: found[name] for name in grouping} == grouping
    for wrong in ({"weight": "adamw"}, {"0.weight": "muon"}):
        with pytest.raises(htsr.InputError, match="expected adamw or htmuon for names of parameters in geometry"):
            parameter_groups(model, geometry=wrong)


def test_queries_keys_and_values_are_matrices_of_their_own():
    torch.manual_seed(0)
    geometry = htsr.gradient_geometry(Attention(), lambda m: m(torch.randn(4, 5, 6)).square().mean(), batches=2)
    assert list(geometry.details["name"])[:3] == [f"inner.in_proj_weight[{i}]" for i in range(3)]
    assert list(geometry.grouping) == ["inner.in_proj_weight", "inner.out_proj.weight"]


def own_numbers():
    draw = torch.Generator().manual_seed(0)
    return lambda m: (m(torch.randn(8, 3, generator=draw)) - 1).square().mean()


@pytest.mark.parametrize(
    ("model", "closure", "options", "error", "message"),
    [
        (nn.Linear(3, 2), own_numbers(), {}, htsr.InputError, "expected the same loss for the same seed"),
        (nn.Linear(3, 2), lambda m: torch.ones(1, requires_grad=True).sum(), {}, htsr.InputError, "to use the model"),
        (nn.LayerNorm(3), lambda m: m(torch.randn(2, 3)).sum(), {}, htsr.InputError, "with weight matrices"),
        (nn.Linear(3, 2), own_numbers(), {"powers": (2,)}, ValueError, "expected powers from -0.25 to 1"),
        (nn.Linear(3, 2), own_numbers(), {"batches": 0}, ValueError, "expected batches"),
        (nn.Linear(3, 2), own_numbers(), {"lr": 0}, ValueError, "expected lr to be positive"),
        ("model", own_numbers(), {}, TypeError, "expected a torch.nn.Module"),
    ],
)
def test_what_cannot_work_is_refused(model, closure, options, error, message):
    with pytest.raises(error, match=message):
        htsr.gradient_geometry(model, closure, **options)


@pytest.mark.parametrize(("factor", "message"), [(0.0, "all zero"), (float("nan"), "not finite")])
def test_gradients_that_say_nothing_are_refused(factor, message):
    batch = torch.randn(4, 8)
    with pytest.raises(htsr.InputError, match=message):
        htsr.gradient_geometry(nn.Linear(8, 8), lambda model: factor * model(batch).mean())
