"""What is listed of a module, what is skipped, and that nothing is changed."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

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


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "wrap", [nn.utils.weight_norm, nn.utils.spectral_norm, lambda m: prune.random_unstructured(m, "weight", 0.5)]
)
def test_hooked_layers_give_the_weight_of_the_next_forward_pass(wrap):
    """The attribute itself is stale after its parameters change."""
    torch.manual_seed(0)
    layer = wrap(nn.Linear(12, 8)).eval()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "bias":
                parameter.mul_(3)
    (found,) = read_module(nn.Sequential(layer)).layers
    weight = found.load()
    layer(torch.zeros(1, 12))
    torch.testing.assert_close(weight, layer.weight)


def test_depthwise_like_kernels_and_missing_weights_are_skipped():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(3, 3, bias=False))
    model[2].weight = None
    inventory = read_module(model)
    assert not inventory.layers
    assert "is a vector" in reasons(inventory)["0.weight"]
    assert reasons(inventory)["1.running_mean"] == "a buffer, not a parameter"


def test_quantized_layers_are_listed():
    class Packed(nn.Module):  # as torch.ao.nn.quantized.Linear: no parameters, a method that unpacks
        def weight(self):
            return torch.zeros(4, 4)

    assert "quantized" in reasons(read_module(nn.Sequential(Packed())))["0"]


def test_names_stay_unique_behind_wrappers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)
            self._orig_mod = nn.Module()
            self._orig_mod.lin = nn.Linear(4, 4)

    assert names(read_module(Model())) == ["lin", "_orig_mod.lin"]


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
