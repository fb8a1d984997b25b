"""Frozen TorchScript models, whose weights are constants of their code."""

from pathlib import Path

import pytest
import torch
from torch import nn

from htsr.weights.source import open_source


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class _Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(6, 4))
        self.tokens = nn.Embedding(9, 4)
        self.scale = nn.Parameter(torch.randn(6, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (self.left @ self.tokens(x).t())


def _frozen(model: nn.Module, path: Path, *inputs: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Return the layer types and weights of a model that was traced and frozen."""
    torch.jit.save(torch.jit.freeze(torch.jit.trace(model.eval(), inputs)), path)
    inventory = open_source(path)
    counted = sum(layer.num_params for layer in inventory.layers) + sum(item.num_params for item in inventory.skipped)
    assert counted <= sum(parameter.numel() for parameter in model.parameters())
    return [(layer.layer_type, layer.load()) for layer in inventory.layers]


def _assert_same(found: list[tuple[str, torch.Tensor]], model: nn.Module) -> None:
    """Assert that these are the layers that the model itself gives, in any order."""
    expected = [(layer.layer_type, layer.load()) for layer in open_source(model).layers]
    assert len(found) == len(expected)
    for layer_type, weight in expected:
        assert any(
            kind == layer_type and other.shape == weight.shape and torch.equal(other, weight) for kind, other in found
        )


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)), (2, 7)),
        (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.Conv2d(4, 4, 1)), (1, 4, 8, 8)),
        (nn.Sequential(nn.Conv1d(3, 6, 3, groups=3), nn.Conv1d(6, 6, 3, groups=6)), (1, 3, 9)),
        (_Recurrent(nn.LSTM(5, 8, num_layers=2, proj_size=4, bidirectional=True)), (2, 3, 5)),
        (_Recurrent(nn.LSTM(8, 2, bias=False)), (2, 3, 8)),
        (_Recurrent(nn.GRU(5, 6)), (2, 3, 5)),
        (_Recurrent(nn.RNN(5, 6)), (2, 3, 5)),
    ],
    ids=["linear", "groups", "depthwise", "projected", "lstm", "gru", "rnn"],
)  # fmt: skip
def test_the_constants_of_a_frozen_model_are_its_weights(model: nn.Module, shape: tuple[int, ...], tmp_path: Path):
    _assert_same(_frozen(model, tmp_path / "frozen.pt", torch.randn(shape)), model)


def test_a_constant_that_no_product_takes_is_no_weight(tmp_path: Path):
    model = _Product()
    found = _frozen(model, tmp_path / "frozen.pt", torch.tensor([1, 4, 2]))
    assert sorted((kind, tuple(weight.shape)) for kind, weight in found) == [("dense", (6, 4)), ("embedding", (9, 4))]
    skipped = open_source(tmp_path / "frozen.pt").skipped
    assert [item.reason for item in skipped if item.shape == (6, 1)] == [
        "argument 0 of mul: not known to be the weight of a matrix product"
    ]
