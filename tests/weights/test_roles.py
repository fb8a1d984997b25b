"""Which tensors are no matrix maps: biases of experts, parameters of state-space models, vectors."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from htsr.optim import parameter_roles
from htsr.weights import open_source


def inventory(**shapes):
    return open_source({key.replace("__", "."): torch.ones(shape) for key, shape in shapes.items()})


def names(inventory):
    return [layer.name for layer in inventory.layers]


@pytest.mark.parametrize(
    ("key", "shape", "reason"),
    [
        ("moe.experts.gate_up_proj_bias", (8, 96), "bias"),
        ("experts.w1_biases", (5, 33), "bias"),
        ("mixer.A_log", (64, 16), "state-space"),
        ("mixer.dt_bias", (4, 8), "bias"),
        ("attention.time_decay", (12, 64), "state-space"),
        ("attention.time_faaaa", (12, 64), "state-space"),
        ("bn.running_var", (3, 40), "statistics"),
        ("attn.mask", (1, 1, 20, 20), "mask"),
        ("scale_table", (1, 72), "vector"),
        ("layer.gamma", (72, 1), "vector"),
    ],
)
def test_tensors_that_are_no_matrix_maps_are_skipped(key, shape, reason):
    found = open_source({key: torch.ones(shape), "fc.weight": torch.ones(6, 7)})
    assert names(found) == ["fc"]
    assert reason in {item.name: item.reason for item in found.skipped}[key]


@pytest.mark.parametrize("shape", [(40, 1, 64), (40, 64, 1, 1), (1, 40, 1, 64)])
def test_dimensions_of_size_one_do_not_make_a_stack(shape):
    tensor = torch.arange(2560.0).reshape(shape)
    (layer,) = open_source({"basis": tensor}).layers
    torch.testing.assert_close(layer.load().flatten(1), tensor.reshape(40, 64))


def test_the_matrix_maps_of_state_space_models_are_layers():
    keys = ["m.x_proj.weight", "m.dt_proj.weight", "m.in_proj.weight", "time_decay_w1", "time_mix.weight"]
    assert names(open_source({key: torch.ones(9, 5) for key in keys})) == [key.removesuffix(".weight") for key in keys]


@pytest.mark.parametrize("key", ["gru.weight_g", "svd.weight_v", "svd.weight_u", "unet.unmask", "head.weight_orig",
                                 "parametrizations.0.linear.weight", "net.parametrizations.fc.weight"])  # fmt: skip
def test_a_name_like_that_of_a_parametrisation_is_a_weight_without_its_siblings(key):
    assert names(open_source({key: torch.ones(6, 9)})) == [key.removesuffix(".weight")]


@pytest.mark.parametrize("name", ["edge_embedding", "embeddings.linear", "x_embedder.proj"])
def test_a_layer_with_a_bias_is_no_table_of_embeddings(name):
    with_bias = {f"{name}.weight": torch.ones(6, 9), f"{name}.bias": torch.ones(6)}
    assert [layer.layer_type for layer in open_source(with_bias).layers] == ["dense"]
    assert [layer.layer_type for layer in open_source({f"{name}.weight": torch.ones(6, 9)}).layers] == ["embedding"]


def test_a_long_kernel_of_one_channel_is_one_matrix():
    (layer,) = open_source({"stft.forward_basis": torch.ones(66, 1, 64)}).layers
    assert layer.shape == (66, 64)


@pytest.mark.parametrize("shape", [(4, 1, 64), (4, 64, 1), (2, 4, 1, 64)])
def test_vectors_of_experts_are_no_stack(shape):
    found = open_source({"experts.w1": torch.ones(shape), "fc.weight": torch.ones(6, 7)})
    assert names(found) == ["fc"]
    assert "vectors" in found.skipped[0].reason


def test_two_matrices_called_g_and_v_are_both_weights():
    assert names(open_source({"cell.weight_g": torch.ones(6, 9), "cell.weight_v": torch.ones(6, 9)})) == [
        "cell.weight_g",
        "cell.weight_v",
    ]


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.orthogonal, lambda m: parametrizations.spectral_norm(parametrizations.orthogonal(m))],
)
def test_the_tensors_of_a_true_parametrisation_are_skipped_in_a_state_dict(wrap):
    found = open_source(nn.Sequential(wrap(nn.Linear(7, 7)), nn.Linear(7, 5)).state_dict())
    assert names(found) == ["1"]


def test_parameter_groups_give_biases_and_state_space_parameters_to_adamw_without_decay():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.A_log = nn.Parameter(torch.ones(16, 4))
            self.down_proj_bias = nn.Parameter(torch.ones(3, 16))
            self.in_proj = nn.Linear(8, 8, bias=False)

    roles = parameter_roles(nn.Sequential(Mixer(), nn.Linear(8, 2)))
    assert {name: role[:2] for name, role in roles.items() if name.startswith("0.")} == {
        "0.A_log": ("adamw", False),
        "0.down_proj_bias": ("adamw", False),
        "0.in_proj.weight": ("htmuon", True),
    }


class Scales(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.weight, self.gamma = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(shape))


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (6, 1, 1, 1), (1, 1, 1, 6)])
def test_scales_of_channels_and_heads_are_vectors(shape):
    model = Scales(shape)
    found = open_source(model)
    assert names(found) == ["conv"]
    assert {item.name for item in found.skipped if "vector" in item.reason} == {"weight", "gamma"}
    assert "gamma" not in names(open_source(model.state_dict()))


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("pos_embed", (1, 12, 5, 5), (12, 25)),
        ("stage.pos_embed2", (1, 7, 7, 12), (49, 12)),
        ("pos_embed", (1, 4, 9, 6), (36, 6)),
        ("patch_pos", (1, 20, 6), (20, 6)),
        ("pixel_pos", (1, 8, 4, 4), (8, 16)),
        ("attn.relative_position_bias_table", (49, 3), (49, 3)),
        ("attn.rel_pos_h", (13, 8), (13, 8)),
    ],
)
def test_a_table_of_positions_is_one_embedding(key, shape, expected):
    tensor = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    (layer,) = open_source({key: tensor}).layers
    assert (layer.layer_type, layer.shape) == ("embedding", expected)
    torch.testing.assert_close(layer.load(), tensor.reshape(expected))


@pytest.mark.parametrize(
    ("key", "shape"), [("mlp.b1", (4, 70)), ("mlp.bias2", (4, 40)), ("attn.pos_bias_u", (4, 40)), ("bias_k", (3, 40))]
)
def test_biases_of_experts_and_heads_are_no_weights(key, shape):
    found = open_source({"mlp.w1": torch.ones(4, 40, 70), key: torch.ones(shape)})
    assert names(found) == [f"mlp.w1[{number}]" for number in range(4)]
    assert "bias" in found.skipped[0].reason


def test_a_matrix_called_b_is_a_weight_without_a_stack_beside_it():
    assert names(open_source({"b1": torch.ones(4, 7), "w1": torch.ones(4, 7)})) == ["b1", "w1"]
