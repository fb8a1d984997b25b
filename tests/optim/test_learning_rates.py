"""Learning rates in other units make the same steps."""

import math

import pytest
import torch
from torch import nn
from torch.optim import Muon

from htsr.optim import HTMuon, convert_lr, lr_table
from htsr.optim.learning_rates import UNITS

SHAPES = [(24, 24), (96, 24), (24, 96)]


def step(kind, shape, **settings):
    """The update that one step makes to a matrix."""
    p = nn.Parameter(torch.zeros(shape))
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kind([p], weight_decay=0.0, **settings).step()
    return p.detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_converted_rate_makes_the_same_step(shape):
    lr = convert_lr(0.02, shape, to="torch:match_rms_adamw")
    ours = step(Muon, shape, lr=0.02)
    torch.testing.assert_close(ours, step(Muon, shape, lr=lr, adjust_lr_fn="match_rms_adamw"), rtol=1e-5, atol=1e-7)
    settings = {"power": 0.0, "method": "svd", "scale": "spectral"}
    base = step(HTMuon, shape, lr=0.02, **settings)
    for adjust in ("spectral", "match_rms_adamw"):
        lr = convert_lr(0.02, shape, rule="htmuon", to=f"htmuon:{adjust}")
        torch.testing.assert_close(base, step(HTMuon, shape, lr=lr, adjust_lr=adjust, **settings), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", UNITS)
def test_there_and_back(unit, shape):
    assert convert_lr(convert_lr(0.3, shape, to=unit), shape, rule=unit, to="torch") == pytest.approx(0.3)


def test_known_values():
    """Of the implementations' formulas, by hand."""
    assert convert_lr(0.02, (64, 256), to="dion") == pytest.approx(0.02 * 2)
    assert convert_lr(0.02, (256, 64), to="dion") == pytest.approx(0.02)
    assert convert_lr(0.02, (256, 64), to="nvidia") == pytest.approx(0.02 * 2 / 16)
    assert convert_lr(1e-3, (256, 64), rule="adamw", to="keller_jordan") == pytest.approx(1e-3 * 0.2 * 16 / 2)


def test_the_table_has_the_shapes_of_a_model():
    model = nn.Sequential(
        nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 32), nn.Conv2d(4, 6, 3), nn.Linear(32, 9)
    )
    table = lr_table(model, 0.1, rule="moonlight")
    assert list(zip(table["n_out"], table["n_in"], table["matrices"], strict=True)) == [
        (8, 8, 2),
        (32, 8, 1),
        (6, 36, 1),
    ]
    assert list(table["first"]) == ["1.weight", "3.weight", "4.weight"]
    assert list(table["torch"]) == pytest.approx(
        [0.1 * 0.2 * math.sqrt(8), 0.1 * 0.2 * math.sqrt(32) / 2, 0.1 * 0.2 * 6]
    )
    assert (table["moonlight"] == 0.1).all()
    assert len(lr_table(nn.Linear(3, 3, bias=False), 0.1)) == 1


def test_wrong_arguments():
    with pytest.raises(ValueError, match="did you mean 'moonlight'"):
        convert_lr(0.1, (2, 2), to="monlight")
    with pytest.raises(ValueError, match="shape"):
        convert_lr(0.1, (2, 2, 2), to="dion")
    with pytest.raises(TypeError):
        convert_lr("0.1", (2, 2), to="dion")
    with pytest.raises(TypeError):
        lr_table([nn.Parameter(torch.ones(2, 2))], 0.1)
