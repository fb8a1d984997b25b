"""The optimizer's settings, each against a readable reference or an equivalent set of parameters."""

import copy

import pytest
import torch
from torch import nn

from htsr.optim import HTMuon, LinearPower, Reading, parameter_groups, parameter_roles, spectral_power
from tests.optim.test_htmuon import gradients, small_problem, steps, weights


def direction_after(M, G, momentum=0.95):
    M = momentum * M + (1 - momentum) * G
    return M, (1 - momentum) * G + momentum * M


def updates(optimizer, p, count, seed=0):
    """What each of so many steps subtracts from a parameter."""
    taken = []
    for step in range(count):
        gradients([p], seed + step)
        before = p.detach().clone()
        optimizer.step()
        taken.append(before - p.detach())
    return taken


def assert_same_trajectory(optimizers, pairs, count=4):
    """Two optimizers whose parameters are views of the same numbers; each pair maps the first's to the second's."""
    for step in range(count):
        draw = torch.Generator().manual_seed(step)
        for p, others, take in pairs:
            p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p.dtype)
            for other, part in zip(others, take(p.grad), strict=True):
                other.grad = part.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, others, take in pairs:
        for other, part in zip(others, take(p.detach()), strict=True):
            torch.testing.assert_close(other.detach(), part, rtol=1e-9, atol=1e-10)


def parts(p, take):
    return [nn.Parameter(part.detach().clone()) for part in take(p)]


@pytest.mark.parametrize(
    ("shape", "reading", "take"),
    [
        ((12, 5), Reading(split=3), lambda t: t.split(4)),
        ((12, 5), Reading(split=(8, 2, 2)), lambda t: t.split([8, 2, 2])),
        ((5, 12), Reading(split=4, split_dim=1), lambda t: t.split(3, dim=1)),
        ((4, 6, 5), Reading("stack"), lambda t: t.unbind(0)),
        ((5, 7), Reading("transposed"), lambda t: [t.T]),
        ((5, 12), Reading("transposed", 3), lambda t: [part.T for part in t.split(4, dim=1)]),
    ],
)
@pytest.mark.parametrize("row_normalize", [False, True])
def test_a_split_parameter_moves_like_its_parts(shape, reading, take, row_normalize):
    (p,) = weights(shape)
    others = parts(p, take)
    settings = {"power": 0.3, "row_normalize": row_normalize, "weight_decay": 0.1, "scale": "raw"}
    optimizers = HTMuon([p], **reading._asdict(), **settings), HTMuon(others, **settings)
    assert_same_trajectory(optimizers, [(p, others, take)])


def test_stacked_parameters_move_like_lone_ones():
    together = weights(*[(6, 4)] * 5, (4, 6), (6, 4), dtype=torch.float32)
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    stacked = HTMuon(together, method="iterate")
    single = [HTMuon([p], method="iterate") for p in alone]
    for step in range(4):
        gradients(together, step)
        for p, other, optimizer in zip(together, alone, single, strict=True):
            other.grad = p.grad.clone()
            optimizer.step()
        stacked.step()
    for p, other in zip(together, alone, strict=True):
        torch.testing.assert_close(p, other, rtol=1e-5, atol=1e-6)


def test_row_normalisation_is_the_published_one():
    (W,) = weights((6, 9))
    optimizer = HTMuon([W], lr=0.1, power=0.125, scale="raw", row_normalize=True, weight_decay=0.0)
    M, v = torch.zeros_like(W), torch.zeros(6, 1, dtype=W.dtype)
    for step in range(4):
        gradients([W], step)
        M, D = direction_after(M, W.grad)
        U, S, Vh = torch.linalg.svd(D, full_matrices=False)
        update = (U * S**0.125) @ Vh
        norm = update.norm()
        v = 0.95 * v + 0.05 * update.square().mean(1, keepdim=True)
        update = update / (v + 1e-10).sqrt()
        expected = W.detach() - 0.1 * update * (norm / update.norm())
        optimizer.step()
        torch.testing.assert_close(W.detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
def test_interval_takes_muon_between_at_the_same_size(scale):
    (p,) = weights((8, 20))
    optimizer = HTMuon([p], lr=1.0, power=0.5, scale=scale, interval=3, weight_decay=0, method="svd", nesterov=False)
    taken = updates(optimizer, p, 6)
    conditions = [float(torch.linalg.cond(update)) for update in taken]
    for step, condition in enumerate(conditions):
        assert (condition > 1.3) == (step % 3 == 0), conditions
    p2 = nn.Parameter(p.detach().clone())
    exact = updates(HTMuon([p2], lr=1.0, power=0.5, scale=scale, weight_decay=0, method="svd", nesterov=False), p2, 6)
    for found, expected in zip(taken, exact, strict=True):
        assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("adjust_lr", "shape", "factor"),
    [
        ("original", (8, 2), 2.0), ("original", (2, 8), 1.0), ("match_rms_adamw", (25, 4), 1.0),
        ("match_rms_adamw", (4, 100), 2.0), ("spectral", (8, 2), 2.0), ("spectral", (2, 8), 0.5),
    ],
)  # fmt: skip
def test_learning_rate_adjustments(adjust_lr, shape, factor):
    (p,) = weights(shape)
    optimizer = HTMuon([p], lr=0.1, adjust_lr=adjust_lr, weight_decay=0, power=0.0)
    (update,) = updates(optimizer, p, 1)
    assert float(torch.linalg.matrix_norm(update, 2)) == pytest.approx(0.1 * factor)


def test_cautious_decay_spares_weights_that_the_update_pushes_away_from_zero():
    plain, careful = weights((6, 4)), weights((6, 4))
    for params, cautious in ((plain, False), (careful, True)):
        optimizer = HTMuon(params, lr=0.1, weight_decay=0.5, cautious=cautious)
        before = params[0].detach().clone()
        gradients(params, 0)
        optimizer.step()
    _, D = direction_after(torch.zeros_like(before), params[0].grad)
    update = spectral_power(D, 0.125, scale="match_muon") * (6 / 4) ** 0.5
    decayed = before * (1 - 0.05)
    expected = torch.where(update * before >= 0, decayed, before) - 0.1 * update
    torch.testing.assert_close(careful[0].detach(), expected, rtol=1e-9, atol=1e-12)
    assert not torch.equal(plain[0], careful[0])


def test_a_schedule_sets_the_power_of_its_group():
    a, b = weights((4, 4), (4, 4))
    schedule = LinearPower(0.5, 0.1, steps=4)
    optimizer = HTMuon([{"params": [a], "power": schedule}, {"params": [b], "power": [0.3, 0.2]}])
    powers = []
    for step in range(6):
        gradients([a, b], step)
        powers.append([group["power"] for group in optimizer.param_groups])
        optimizer.step()
    used = [[group["power"] for group in optimizer.param_groups]]
    assert [first for first, _ in [*powers[1:], *used]] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    assert [second for _, second in [*powers[1:], *used]] == [0.3, 0.2, 0.2, 0.2, 0.2, 0.2]


def test_a_schedule_that_leaves_the_range_is_refused_before_anything_moves():
    (p,) = weights((4, 4))
    optimizer = HTMuon([p], power=lambda step: 0.5 * step)
    for step in range(3):
        gradients([p], step)
        optimizer.step()
    before = p.detach().clone()
    gradients([p], 3)
    with pytest.raises(ValueError, match=r"power in \[-0.25, 1\].*got 1.5"):
        optimizer.step()
    assert torch.equal(p, before)


@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
@pytest.mark.parametrize("method", ["auto", "svd", "eigh", "iterate"])
def test_trajectories_do_not_depend_on_the_scale_of_the_gradient(scale, factor, method):
    settings = {"method": method, "scale": scale, "weight_decay": 0, "power": 0.25}
    shapes = [(70, 90), (90, 70), (70, 300)]
    ours, scaled = weights(*shapes, dtype=torch.float32), weights(*shapes, dtype=torch.float32)
    for p in (*ours, *scaled):
        p.data.zero_()  # so that no digits of the movement are lost in the weights
    optimizers = HTMuon(ours, **settings), HTMuon(scaled, **settings)
    for step in range(3):
        gradients(ours, step)
        gradients(scaled, step)
        for p in scaled:
            p.grad *= factor
        for optimizer in optimizers:
            optimizer.step()
    for p, other in zip(ours, scaled, strict=True):
        moved, expected = other.detach(), p.detach() * (factor**0.25 if scale == "raw" else 1)
        tolerance = 2e-3 if method == "auto" else 1e-4  # a bfloat16 rounding may fall the other way
        assert (moved - expected).norm() < tolerance * expected.norm()


RESUMABLE = {
    "default": {},
    "iterate": {"method": "iterate", "steps": 7},
    "interval": {"interval": 3, "scale": "raw", "power": 0.25},
    "rows": {"row_normalize": True},
    "stream": {"method": "stream"},
    "schedule": {"power": LinearPower(0.5, 0.0, steps=7)},
    "split": {"splits": {"2.weight": 4}},
}


@pytest.mark.parametrize("name", RESUMABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resuming_at_any_step_is_exact(name, dtype, tmp_path):
    settings = {**RESUMABLE[name], "momentum_dtype": torch.float32}

    def start():
        model, x, y = small_problem(dtype=dtype)
        return model, HTMuon(parameter_groups(model, **settings), adamw_lr=1e-2), x, y

    model, optimizer, x, y = start()
    for step in range(6):
        torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / str(step))
        steps(model, optimizer, x, y, 1)
    for step in range(6):
        resumed, fresh, x, y = start()
        steps(resumed, fresh, x, y, 2)  # something else to overwrite
        weights_then, state_then = torch.load(tmp_path / str(step), weights_only=True)
        resumed.load_state_dict(weights_then)
        fresh.load_state_dict(state_then)
        assert fresh.param_groups[0]["step"] == step
        steps(resumed, fresh, x, y, 6 - step)
        for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b), step


def test_float32_momentum_of_bfloat16_parameters():
    (p,) = weights((6, 4), dtype=torch.bfloat16)
    optimizer = HTMuon([p], momentum_dtype=torch.float32)
    gradients([p], 0)
    optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"]
    assert buffer.dtype == torch.float32
    torch.testing.assert_close(buffer, 0.05 * p.grad.float(), rtol=1e-6, atol=0)
    assert p.dtype == torch.bfloat16
    twin = copy.deepcopy(optimizer)
    twin.load_state_dict(optimizer.state_dict())
    (state,) = twin.state.values()
    assert torch.equal(state["momentum_buffer"], buffer)


@pytest.mark.parametrize("method", ["auto", "iterate", "eigh", "stream"])
def test_the_update_does_not_write_into_the_momentum(method):
    """torch.optim.Muon 2.13 does, for bfloat16 parameters without nesterov."""
    (p,) = weights((6, 4), dtype=torch.bfloat16)
    optimizer = HTMuon([p], nesterov=False, momentum=0.5, method=method)
    gradients([p], 0)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], (0.5 * p.grad.float()).bfloat16())


def test_channels_last_convolutions():
    plain, last = weights((6, 3, 2, 2)), weights((6, 3, 2, 2))
    last[0].data = last[0].data.to(memory_format=torch.channels_last)
    for params in (plain, last):
        updates(HTMuon(params), params[0], 3)
    torch.testing.assert_close(plain[0].detach(), last[0].detach().contiguous(), rtol=1e-12, atol=1e-12)


def test_tensor_learning_rates_do_what_numbers_do():
    ours, theirs = weights((6, 4), (5,), dtype=torch.float32), weights((6, 4), (5,), dtype=torch.float32)
    optimizers = HTMuon(ours, lr=torch.tensor(0.05)), HTMuon(theirs, lr=0.05)
    for step in range(3):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            gradients(params, step)
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_grad_scaler_skips_an_overflow_and_scales_out_the_rest():
    model, x, y = small_problem()
    optimizer = HTMuon(parameter_groups(model))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(model(x).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    optimizer.zero_grad()
    first = nn.functional.cross_entropy(model(x), y)
    scaler.scale(first).backward()
    scaler.step(optimizer)
    scaler.update()
    assert nn.functional.cross_entropy(model(x), y) < first


def test_the_error_of_a_bad_gradient_names_parameter_and_step():
    model, x, y = small_problem()
    optimizer = HTMuon(parameter_groups(model))
    steps(model, optimizer, x, y, 3)
    model[2].weight.grad[0, 0] = float("nan")
    with pytest.raises(
        ValueError, match=r"'2.weight' of shape \(32, 32\) is not finite \(1 of 1024 entries\) at step 3"
    ):
        optimizer.step()


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("auto", 1_000),
        ("iterate", 300),
        ("eigh", 300),
        ("stream", 300),
        pytest.param("auto", 10_000, marks=pytest.mark.slow),
    ],
)
def test_thousands_of_hostile_steps(method, count):
    shapes = [(6, 4), (4, 9), (5,)]
    params = weights(*shapes, dtype=torch.float32)
    optimizer = HTMuon(params, method=method, power=lambda step: (step % 6) / 4 - 0.25)
    draw = torch.Generator().manual_seed(0)
    for step in range(count):
        kind = int(torch.randint(7, (), generator=draw))
        for p in params:
            G = torch.randn(p.shape, generator=draw)
            if kind == 0:
                G = torch.zeros_like(G)
            elif kind == 1:
                G = (torch.outer(G[:, 0], G[0]) if G.ndim == 2 else G) * 1.0
            elif kind == 2:
                G = torch.ones_like(G)
            elif kind in {3, 4}:
                G = G * (1e-30 if kind == 3 else 1e30)
            p.grad = G
        if kind == 5:
            bad = params[step % 3]
            bad.grad.view(-1)[0] = float("nan") if step % 2 else float("inf")
            before = [p.detach().clone() for p in params]
            with pytest.raises(ValueError, match="is not finite"):
                optimizer.step()
            assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
        else:
            optimizer.step()
    assert all(torch.isfinite(p).all() for p in params)
    assert all(p.abs().max() < 100 for p in params)


@pytest.mark.slow
def test_the_compiled_update_is_the_eager_one():
    eager, compiled = weights((80, 100), dtype=torch.float32), weights((80, 100), dtype=torch.float32)
    optimizers = HTMuon(eager, method="iterate"), HTMuon(compiled, method="iterate", compile=True)
    for step in range(2):
        for params, optimizer in zip((eager, compiled), optimizers, strict=True):
            gradients(params, step)
            optimizer.step()
    torch.testing.assert_close(eager[0], compiled[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_step_under_torch_compile():
    ours, theirs = weights((70, 80), dtype=torch.float32), weights((70, 80), dtype=torch.float32)
    optimizers = HTMuon(ours), HTMuon(theirs)
    step_theirs = torch.compile(optimizers[1].step, backend="eager")
    for step in range(2):
        gradients(ours, step)
        gradients(theirs, step)
        optimizers[0].step()
        step_theirs()
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": 0}, "interval to be a whole number >= 1, got 0"),
        ({"adjust_lr": "muon"}, "adjust_lr to be one of original, match_rms_adamw, spectral"),
        ({"row_beta": 1.0}, "row_beta in"),
        ({"split": 3}, "adds up to 4 rows"),
        ({"steps": 3}, "steps from 5 to 9"),
        ({"power": [0.5, 2.0], "step": 1}, None),
    ],
)
def test_bad_settings_are_refused(settings, message):
    if message is None:
        with pytest.raises(TypeError):
            HTMuon(weights((4, 4)), **settings)
    else:
        with pytest.raises(ValueError, match=message):
            HTMuon(weights((4, 4)), **settings)


def test_the_papers_layout():
    model = nn.ModuleDict({"embed": nn.Embedding(10, 4), "body": nn.Linear(4, 4), "lm_head": nn.Linear(4, 10)})
    roles = parameter_roles(model, embeddings_and_head="htmuon")
    assert {name for name, role in roles.items() if role.algorithm == "adamw"} == {"body.bias", "lm_head.bias"}
    assert roles["embed.weight"].reason == "embedding, a matrix in the paper's layout"


def test_experts_and_splits_by_name():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.Parameter(torch.randn(3, 8, 4))
            self.qkv = nn.Linear(4, 12)
            self.attention = nn.MultiheadAttention(4, 2)

    model = Model()
    groups = parameter_groups(model, stacks=("experts",), splits={"qkv.weight": 3}, power=0.5)
    readings = {
        name: (group.get("layout", "flatten"), group.get("split")) for group in groups for name, _ in group["params"]
    }
    assert readings["experts"] == ("stack", None)
    assert readings["qkv.weight"] == ("flatten", 3)
    assert readings["attention.in_proj_weight"] == ("flatten", 3)
    assert readings["attention.out_proj.weight"] == ("flatten", None)
    assert all(group["power"] == 0.5 for group in groups if group["algorithm"] == "htmuon")
    HTMuon(groups)
    with pytest.raises(ValueError, match=r"'\*.qvk' matches none"):
        parameter_groups(model, splits={"*.qvk": 3})


def test_settings_may_change_while_training():
    (p,) = weights((8, 6))
    optimizer = HTMuon([p])
    updates(optimizer, p, 2)
    optimizer.param_groups[0] |= {"row_normalize": True, "method": "stream", "interval": 2, "scale": "raw"}
    updates(optimizer, p, 2)
    assert set(optimizer.state[p]) == {"momentum_buffer", "resolved", "row_second_moment", "basis", "norm_ratio"}
