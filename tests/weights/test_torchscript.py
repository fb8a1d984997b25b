"""Modules that TorchScript compiled have the rows of the eager module."""

import pytest
import torch
from torch import nn

from htsr.weights import open_source

MODULES = [
    nn.Conv2d(32, 64, 3, groups=4),
    nn.Conv1d(12, 18, 5, groups=3),
    nn.ConvTranspose2d(8, 6, 3),
    nn.GRU(5, 7),
    nn.LSTM(6, 4, num_layers=2),
    nn.Embedding(20, 6),
    nn.Linear(9, 4),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_a_scripted_module_has_the_rows_of_the_eager_one(module):
    eager = nn.Sequential(module).eval()
    expected, found = open_source(eager).layers, open_source(torch.jit.script(eager)).layers
    assert [(x.name, x.layer_type, x.shape) for x in found] == [(x.name, x.layer_type, x.shape) for x in expected]
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.load(), truth.load())


@pytest.mark.parametrize("key", ["model_state", "my_network"])
def test_the_mapping_that_holds_the_tensors_is_the_model(key):
    found = open_source({key: nn.Linear(7, 5).state_dict(), "epoch": 3})
    assert [layer.name for layer in found.layers] == ["weight"]
