"""What is listed of a module, what is skipped, and that nothing is changed."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from htsr.weights.modules import read_module


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.embedding.weight


def names(inventory):
    return [layer.name for layer in inventory.layers]


def reasons(inventory):
    return {item.name: item.reason for item in inventory.skipped}


def test_layers_come_in_model_order_with_their_types():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv1d(8, 8, 2), nn.Embedding(20, 4), nn.Linear(4, 2))
    inventory = read_module(model)
    assert [(x.name, x.layer_type, x.shape) for x in inventory.layers] == [
        ("0", "conv2d", (8, 3, 3, 3)),
        ("1", "conv1d", (8, 8, 2)),
        ("2", "embedding", (20, 4)),
        ("3", "dense", (2, 4)),
    ]
    assert torch.equal(inventory.layers[3].load(), model[3].weight)


def test_every_parameter_is_in_one_of_the_two_lists():
    model = nn.TransformerEncoderLayer(16, 2, 32)
    inventory = read_module(model)
    assert len(inventory.layers) + len(inventory.skipped) == len(list(model.parameters()))
    assert "MultiheadAttention" in reasons(inventory)["self_attn.in_proj_weight"]
    assert reasons(inventory)["norm1.weight"] == "1-D: not a matrix"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.LSTM(4, 4), "layer type LSTM"),
        (nn.ConvTranspose2d(4, 4, 3), "layer type ConvTranspose2d"),
        (nn.Conv3d(4, 4, 3), "layer type Conv3d"),
        (nn.Conv2d(8, 8, 3, groups=4), "groups=4"),
        (nn.Bilinear(4, 4, 4), "layer type Bilinear"),
        (nn.LazyLinear(4), "lazily initialised"),
        (nn.Linear(4, 4, device="meta"), "meta device"),
    ],
)
def test_other_layers_are_skipped_with_the_reason(module, reason):
    inventory = read_module(nn.Sequential(module))
    assert not inventory.layers
    assert any(reason in item.reason for item in inventory.skipped)


def test_tied_weights_are_marked():
    first, _, last = read_module(Tied()).layers
    assert (first.name, first.tied_to) == ("embedding", None)
    assert (last.name, last.tied_to) == ("head", "embedding")


def test_one_module_used_twice_is_tied():
    layer = nn.Linear(4, 4)
    inventory = read_module(nn.Sequential(layer, nn.ReLU(), layer))
    assert [x.tied_to for x in inventory.layers] == [None, "0"]


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_parametrized_layers_give_their_effective_weight(wrap):
    torch.manual_seed(0)
    layer = wrap(nn.Linear(12, 8))
    model = nn.Sequential(layer).train()
    inventory = read_module(model)
    assert names(inventory) == ["0"]
    state = copy.deepcopy(model.state_dict())
    weight = inventory.layers[0].load()
    assert weight.shape == (8, 12)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    assert all(part.training for part in model.modules())
    assert torch.equal(weight, layer.eval().weight)
    assert all("computes" in reason for name, reason in reasons(inventory).items() if "original" in name)


def test_hooked_weight_norm_gives_its_effective_weight():
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer = nn.utils.weight_norm(nn.Linear(12, 8))
    inventory = read_module(nn.Sequential(layer))
    assert names(inventory) == ["0"]
    assert "0.weight_v" in reasons(inventory)


def test_wrapper_names_are_stripped():
    model = torch.compile(nn.Sequential(nn.Linear(4, 4)))
    (layer,) = read_module(model).layers
    assert (layer.name, layer.longname) == ("0", "_orig_mod.0")


def test_a_bare_layer_is_called_weight():
    assert names(read_module(nn.Linear(4, 4))) == ["weight"]


def test_a_frozen_integer_weight_is_skipped():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    assert "uint8" in reasons(read_module(nn.Sequential(layer)))["0.weight"]
