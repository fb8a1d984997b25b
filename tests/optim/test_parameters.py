"""Parameters that are no usual matrix: without entries, complex, of integers."""

import pytest
import torch
from torch import nn

from htsr.errors import InputError
from htsr.optim import HTMuon, parameter_groups, parameter_roles, spectral_power

EMPTY = [(0,), (0, 6), (6, 0), (0, 0), (0, 6, 6, 6), (6, 0, 6, 6), (6, 6, 0, 6), (2, 0, 6), (2, 6, 0)]
SETTINGS = [
    {}, {"layout": "stack"}, {"split": 1}, {"layout": "stack", "split": 2}, {"split": 3, "split_dim": 1}, {"row_normalize": True},
    {"interval": 2, "scale": "raw"}, {"method": "stream"}, {"method": "iterate"}, {"method": "eigh"}, {"adjust_lr": "spectral"},
    {"cautious": True}, {"momentum_dtype": torch.float64}, {"algorithm": "adamw"},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", EMPTY)
def test_a_parameter_without_entries_is_stepped_saved_and_loaded(shape, settings):
    empty, other = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.ones(6, 6))
    if len(shape) == 1 and "split" in settings:
        settings = {}
    optimizer = HTMuon([{"params": [empty, other], **settings}])
    for _ in range(3):
        empty.grad, other.grad = torch.empty(shape), torch.ones(6, 6)
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert not torch.equal(other, torch.ones(6, 6))


def test_a_transposed_matrix_without_entries_is_stepped():
    params = [nn.Parameter(torch.empty(0, 6)), nn.Parameter(torch.empty(6, 0))]
    optimizer = HTMuon([{"params": params, "layout": "transposed", "row_normalize": True, "method": "stream"}])
    for p in params:
        p.grad = torch.empty_like(p)
    optimizer.step()


@pytest.mark.parametrize("method", ["auto", "svd", "eigh", "iterate", "stream"])
@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
def test_the_power_of_a_matrix_without_entries_has_none(method, scale):
    for shape in EMPTY[1:]:
        for power in (-0.1, 0.0, 0.5, 1.0):
            k = min(shape[-2:])
            basis = torch.zeros(*shape[:-2], k, k) if method == "stream" else None
            result = spectral_power(torch.empty(shape).half(), power, method=method, scale=scale, basis=basis)
            assert (result.shape, result.dtype) == (shape, torch.float16)


def complex_weights():
    draw = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, dtype=torch.complex64, generator=draw)) for shape in ((4, 5), (3,), (2, 3, 2))
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_complex_parameters_are_updated_as_torchs_adamw_does(labelled):
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-8, "weight_decay": 0.3}
    ours, theirs = complex_weights(), complex_weights()
    group = {"params": ours, **settings, **({"algorithm": "adamw"} if labelled else {"adamw_lr": 0.01})}
    optimizers = HTMuon([group]), torch.optim.AdamW(theirs, **settings)
    assert [group["algorithm"] for group in optimizers[0].param_groups] == ["adamw"]
    for step in range(4):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            draw = torch.Generator().manual_seed(step)
            for p in params:
                p.grad = torch.randn(p.shape, dtype=p.dtype, generator=draw)
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_a_conjugated_gradient_is_taken_and_one_that_is_not_finite_is_refused():
    (p, *_) = complex_weights()
    optimizer = HTMuon([p])
    p.grad = torch.ones_like(p).conj()
    optimizer.step()
    before = p.detach().clone()
    p.grad = torch.full_like(p, complex(0, float("nan")))
    with pytest.raises(InputError, match=r"not finite \(20 of 20 entries\)"):
        optimizer.step()
    assert torch.equal(p, before)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.int8, torch.bool])
def test_no_matrix_that_is_not_real_goes_to_htmuon(dtype):
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
    model[0].weight = nn.Parameter(torch.ones(4, 4).to(dtype), requires_grad=False)
    model.experts = nn.Parameter(torch.ones(2, 4, 4).to(dtype), requires_grad=False)
    roles = parameter_roles(model, stacks=("experts",), embeddings_and_head="htmuon", splits={"0.weight": 2})
    kind = str(dtype).removeprefix("torch.")
    assert {name: role.algorithm for name, role in roles.items()} == {
        "0.weight": "adamw", "1.weight": "htmuon", "2.weight": "htmuon", "experts": "adamw",
    }  # fmt: skip
    assert roles["0.weight"].reason == f"{kind}, not a real matrix"
    optimizer = HTMuon(parameter_groups(model))
    model[1].weight.grad = torch.ones(4, 4)
    optimizer.step()
    with pytest.raises(InputError, match=rf"expected real matrices .* got 'w' of shape \(4, 4\) and torch.{kind}"):
        HTMuon([{"params": [("w", model[0].weight)], "algorithm": "htmuon"}])
