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


@pytest.mark.parametrize("trace", [True, False])
def test_a_convolution_in_memory_is_cut_into_its_groups(trace):
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 9, 2, groups=3)).eval()
    compiled = torch.jit.trace(model, torch.randn(1, 4, 6, 6)) if trace else torch.jit.script(model)
    expected = {layer.name: layer.load() for layer in open_source(model).layers}
    found = {layer.name: layer.load() for layer in open_source(compiled).layers}
    assert list(found) == list(expected) == ["0[0]", "0[1]", "1[0]", "1[1]", "1[2]"]
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_weight_norm_of_a_traced_model_in_memory():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(7, 5)))
    (layer,) = open_source(torch.jit.trace(model, torch.randn(1, 7))).layers
    torch.testing.assert_close(layer.load(), model[0].weight.detach())
