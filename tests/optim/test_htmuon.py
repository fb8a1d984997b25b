"""The optimizer against readable references, and against what frameworks ask of optimizers."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from htsr.optim import HTMuon, parameter_groups


def weights(*shapes, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=draw, dtype=dtype)) for shape in shapes]


def gradients(params, step):
    draw = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p.dtype)


def polar(G):
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return U @ Vh


def reference_step(W, M, G, *, lr, power, momentum, nesterov, weight_decay, scale):
    """One step of the docstring's formulas, for one matrix; returns the new W and M."""
    M = momentum * M + (1 - momentum) * G
    D = ((1 - momentum) * G + momentum * M if nesterov else M).flatten(1)
    U, S, Vh = torch.linalg.svd(D, full_matrices=False)
    update = (U * S**power) @ Vh
    if scale == "spectral":
        update = update / (S**power).max()
    if scale == "match_muon":
        update = update * len(S) ** 0.5 / update.norm()
    rows, columns = D.shape
    return (1 - lr * weight_decay) * W - lr * max(1, rows / columns) ** 0.5 * update.view_as(W), M


@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
@pytest.mark.parametrize("power", [-0.25, 0.0, 0.125, 0.5, 1.0])
@pytest.mark.parametrize("nesterov", [True, False])
def test_trajectory_of_the_reference(scale, power, nesterov):
    settings = {"lr": 0.05, "power": power, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.2, "scale": scale}
    params = weights((6, 4), (4, 6), (5, 5), (8, 3, 2, 2), (6, 3, 2))
    expected = [(p.detach().clone(), torch.zeros_like(p)) for p in params]
    optimizer = HTMuon(params, **settings)
    for step in range(5):
        gradients(params, step)
        expected = [reference_step(W, M, p.grad, **settings) for (W, M), p in zip(expected, params, strict=True)]
        optimizer.step()
    for p, (W, _) in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), W, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("nesterov", [True, False])
def test_power_zero_is_torchs_muon_with_an_exact_polar_factor(nesterov, monkeypatch):
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", lambda G, *_: polar(G))
    ours, theirs = weights((6, 4), (4, 6), (5, 5)), weights((6, 4), (4, 6), (5, 5))
    settings = {"lr": 0.03, "momentum": 0.95, "nesterov": nesterov, "weight_decay": 0.1}
    optimizers = HTMuon(ours, power=0.0, **settings), torch.optim.Muon(theirs, **settings)
    for step in range(6):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            gradients(params, step)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_power_one_raw_is_the_momentum_itself():
    (W,) = weights((6, 6))
    optimizer = HTMuon([W], lr=0.1, power=1.0, scale="raw", nesterov=False, momentum=0.5, weight_decay=0)
    before = W.detach().clone()
    gradients([W], 0)
    optimizer.step()
    torch.testing.assert_close(W.detach(), before - 0.1 * 0.5 * W.grad, rtol=1e-14, atol=0)


def test_the_adamw_part_is_torchs_adamw():
    ours, theirs = weights((7,), (6, 4)), weights((7,), (6, 4))
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-8, "weight_decay": 0.3}
    optimizers = HTMuon([{"params": ours, "algorithm": "adamw", **settings}]), torch.optim.AdamW(theirs, **settings)
    for step in range(5):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            gradients(params, step)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_gradients_are_not_changed():
    params = weights((6, 4), (7,))
    optimizer = HTMuon(params)
    gradients(params, 0)
    before = [p.grad.clone() for p in params]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
@pytest.mark.parametrize("power", [-0.25, 0.0, 0.125, 1.0])
def test_zero_gradients_leave_weights_bit_equal(scale, power):
    params = weights((6, 4), (4, 6, 2), (7,), dtype=torch.float32)
    before = [p.detach().clone() for p in params]
    optimizer = HTMuon(params, power=power, scale=scale, weight_decay=0.1)
    for p in params:
        p.grad = torch.zeros_like(p)
    for _ in range(3):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert all(optimizer.state[p] for p in params)  # the state is there all the same: checkpointing relies on it


def test_parameters_without_gradient_are_left_alone():
    params = weights((6, 4), (5, 5), (7,))
    optimizer = HTMuon(params)
    gradients(params[:1], 0)
    before = params[1].detach().clone()
    optimizer.step()
    assert torch.equal(params[1], before)
    assert params[1] not in optimizer.state


def test_vectors_in_an_unlabelled_group_get_adamw():
    model = nn.Linear(4, 6)
    optimizer = HTMuon(model.named_parameters(), lr=0.03, adamw_lr=0.002)
    assert [(g["algorithm"], g["lr"], g["param_names"]) for g in optimizer.param_groups] == [
        ("htmuon", 0.03, ["weight"]),
        ("adamw", 0.002, ["bias"]),
    ]


def test_group_settings_win():
    a, b = weights((4, 4), (4, 4))
    optimizer = HTMuon([{"params": [a], "power": 0.5}, {"params": [b], "lr": 0.1}], lr=0.01, power=0.25)
    assert [(g["power"], g["lr"]) for g in optimizer.param_groups] == [(0.5, 0.01), (0.25, 0.1)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power": 1.01}, r"power in \[-0.25, 1\].*got 1.01"),
        ({"power": -0.26}, "got -0.26"),
        ({"lr": -0.1}, "lr >= 0, got -0.1"),
        ({"momentum": 1.0}, "momentum in"),
        ({"weight_decay": -1}, "weight_decay >= 0"),
        ({"scale": "frobenius"}, "scale to be one of"),
        ({"betas": (1.0, 0.9)}, "betas in"),
        ({"eps": float("nan")}, "eps >= 0"),
        ({"method": "magic"}, "method to be one of"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        HTMuon(weights((4, 4)), **settings)


def test_a_vector_among_matrices_is_refused_by_name():
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"'bias' of shape \(4,\).*parameter_groups"):
        HTMuon([{"params": list(model.named_parameters()), "algorithm": "htmuon"}])


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ValueError, match="algorithm to be one of htmuon, adamw, got 'lion'"):
        HTMuon([{"params": weights((4, 4)), "algorithm": "lion"}])


def test_sparse_gradients_are_refused_by_name():
    model = nn.Embedding(10, 4, sparse=True)
    optimizer = HTMuon(model.named_parameters())
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=r"sparse gradients, got one for 'weight' of shape \(10, 4\)"):
        optimizer.step()


def test_a_power_set_out_of_range_later_is_refused():
    model = nn.Linear(4, 4, bias=False)
    optimizer = HTMuon(model.named_parameters())
    gradients(model.parameters(), 0)
    optimizer.param_groups[0]["power"] = 3.0
    with pytest.raises(ValueError, match=r"expected power in .* got 3.0"):
        optimizer.step()


def small_problem(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).to(dtype)
    x = torch.randn(64, 10)
    return model, x.to(dtype), (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def steps(model, optimizer, x, y, count):
    for _ in range(count):
        loss = cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("power", [0.0, 0.125, 0.5, 1.0])
@pytest.mark.parametrize("scale", ["match_muon", "spectral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_falls(power, scale, dtype):
    model, x, y = small_problem(dtype=dtype)
    optimizer = HTMuon(parameter_groups(model), lr=0.02, power=power, scale=scale, adamw_lr=1e-2)
    first = steps(model, optimizer, x, y, 1)
    assert steps(model, optimizer, x, y, 150) < 0.4 * first


def test_resume_from_a_state_dict_is_exact(tmp_path):
    model, x, y = small_problem()
    optimizer = HTMuon(parameter_groups(model), power=0.3)
    steps(model, optimizer, x, y, 5)
    optimizer.param_groups[0]["power"] = 0.4
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    steps(model, optimizer, x, y, 5)

    resumed, x, y = small_problem(seed=1)
    _, x, y = small_problem()
    fresh = HTMuon(parameter_groups(resumed))
    checkpoint = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed.load_state_dict(checkpoint["model"])
    fresh.load_state_dict(checkpoint["optimizer"])
    assert fresh.param_groups[0]["power"] == 0.4
    steps(resumed, fresh, x, y, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_take_the_same_steps(duplicate):
    model, x, y = small_problem()
    optimizer = HTMuon(parameter_groups(model))
    steps(model, optimizer, x, y, 3)
    other_model, other_optimizer = duplicate((model, optimizer))
    for pair in ((model, optimizer), (other_model, other_optimizer)):
        steps(*pair, x, y, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other_model.parameters(), strict=True))
    other_optimizer.add_param_group({"params": [("extra", *weights((7,)))]})
    assert other_optimizer.param_groups[-1]["lr"] == 1e-3


def test_closures_schedulers_and_tensor_learning_rates():
    model, x, y = small_problem()
    optimizer = HTMuon(parameter_groups(model), lr=torch.tensor(0.02))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in range(3):
        losses.append(optimizer.step(closure).item())
        scheduler.step()
    assert losses[-1] < losses[0]
    assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx([0.0025, 0.000125, 0.000125])


def test_one_cycle_schedule_with_momentum():
    model, x, y = small_problem()
    optimizer = HTMuon(parameter_groups(model))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.02, 1e-3, 1e-3], total_steps=10)
    for _ in range(5):
        steps(model, optimizer, x, y, 1)
        scheduler.step()


def test_no_parameters():
    with pytest.raises(ValueError, match="empty parameter list"):
        HTMuon([])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["first.weight", "second.weight", "second.bias"])
def test_a_non_finite_gradient_changes_nothing_and_can_be_left_out(bad, where):
    torch.manual_seed(0)
    model = nn.ModuleDict({"first": nn.Linear(6, 4), "second": nn.Linear(4, 4)})
    optimizer = HTMuon(model.named_parameters())
    gradients(model.parameters(), 0)
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    gradients(model.parameters(), 1)
    dict(model.named_parameters())[where].grad.view(-1)[0] = bad
    with pytest.raises(ValueError, match=rf"gradient of '{where}' of shape .* is not finite \(1 of"):
        optimizer.step()
    after = (model.state_dict(), optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    gradients(model.parameters(), 2)
    optimizer.step()


def test_a_sparse_gradient_changes_nothing():
    model = nn.ModuleDict({"linear": nn.Linear(4, 4), "table": nn.Embedding(10, 4, sparse=True)})
    optimizer = HTMuon(model.named_parameters())
    before = copy.deepcopy(model.state_dict())
    (model["linear"](model["table"](torch.tensor([1])))).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_groups_are_added_whole_or_not_at_all():
    optimizer = HTMuon(weights((4, 4)))
    with pytest.raises(ValueError, match="adds up to 3 rows"):
        optimizer.add_param_group({"params": weights((4, 4), (3, 4)), "split": 2})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("wrong", ["weight", 3, None, ("weight", 3), ("a", "b", "c")])
def test_what_is_no_parameter_is_refused(wrong):
    for params in ([wrong], [{"params": [wrong]}], [{"params": [wrong], "algorithm": "htmuon"}]):
        with pytest.raises(
            TypeError, match=r"expected parameters, or pairs of a name and a parameter, got|params argument"
        ):
            HTMuon(params)
    with pytest.raises(TypeError, match="expected parameters"):
        HTMuon(dict(nn.Linear(2, 2).named_parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "settings", [{}, {"method": "stream"}, {"row_normalize": True, "interval": 2, "scale": "raw"}], ids=str
)
def test_parameters_of_every_type_learn_and_may_change_their_type_while_training(dtype, settings):
    model, x, y = small_problem(dtype=dtype)
    optimizer = HTMuon(parameter_groups(model, **settings), adamw_lr=1e-2, momentum=torch.tensor(0.9))
    first = steps(model, optimizer, x, y, 1)
    assert steps(model, optimizer, x, y, 10) < first
    optimizer.load_state_dict(optimizer.state_dict())
    for later in (torch.float32, torch.float64, dtype):
        last = steps(model.to(later), optimizer, x.to(later), y, 3)
    assert last < first


def test_numbers_of_numpy_are_saved_as_pythons(tmp_path):
    params = weights((4, 4), (3,), dtype=torch.float32)
    optimizer = HTMuon(params, lr=np.float64(0.1), momentum=np.float32(0.5), betas=(np.float64(0.9), 0.95))
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.exp(-step))
    gradients(params, 0)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    groups = torch.load(tmp_path / "o.pt", weights_only=True)["param_groups"]
    assert [(group["lr"], group["momentum"], group["betas"][0]) for group in groups] == [
        (0.1, 0.5, 0.5),
        (1e-3, 0.5, 0.9),
    ]


def test_float16_vectors_take_the_steps_of_float32():
    """A gradient of 1e-4 has a square of 1e-8, which is zero in float16, as is eps."""
    half, single = weights((7,), dtype=torch.float16), weights((7,), dtype=torch.float16)
    single[0].data = single[0].data.float()
    optimizers = HTMuon(half), HTMuon(single)
    for _ in range(5):
        for (p,), optimizer in zip((half, single), optimizers, strict=True):
            p.grad = torch.full_like(p, 1e-4)
            optimizer.step()
    torch.testing.assert_close(half[0].float(), single[0], rtol=1e-3, atol=2e-3)


def test_new_state_of_adamw_ignores_the_default_device():
    (p,) = weights((7,))
    optimizer = HTMuon([p])
    gradients([p], 0)
    with torch.device("meta"):
        optimizer.step()
    assert optimizer.state[p]["step"].device.type == "cpu"


def test_settings_of_other_tools_may_stand_in_a_group():
    optimizer = HTMuon([{"params": weights((4, 4)), "lr_scale": 0.5}])
    assert optimizer.param_groups[0]["lr_scale"] == 0.5


def test_a_set_of_parameters_is_refused():
    with pytest.raises(TypeError, match="set"):
        HTMuon([{"params": set(weights((4, 4)))}])
