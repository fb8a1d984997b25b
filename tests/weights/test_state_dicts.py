"""Mappings of tensors or arrays list their weights and skip the rest with a reason."""

import numpy as np
import pytest
import torch
from torch import nn

from htsr import InputError
from htsr.weights import open_source


def test_a_state_dict_lists_what_its_module_lists():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 2))
    from_dict, from_module = open_source(model.state_dict()), open_source(model)
    assert [(x.name, x.layer_type, x.shape) for x in from_dict.layers] == [
        (x.name, x.layer_type, x.shape) for x in from_module.layers
    ]


def test_arrays_of_any_byte_order_and_layout():
    a = np.random.default_rng(0).normal(size=(6, 4))
    inventory = open_source(
        {"plain": a, "swapped": a.astype(">f4"), "transposed": a.T, "half": a.astype(np.float16)}
        | {"long": a.astype(np.longdouble)}
    )
    for layer, expected in zip(inventory.layers, [a, a, a.T, a, a], strict=True):
        np.testing.assert_allclose(layer.load().double().numpy(), expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("x.bias", torch.zeros(4), "1-D"),
        ("attn.bias", torch.zeros(1, 1, 8, 8), "bias or mask"),
        ("ids", torch.zeros(2, 3, dtype=torch.int64), "int64"),
        ("spectrum", torch.zeros(2, 3, dtype=torch.complex64), "complex64"),
        ("mask", np.zeros((2, 3), dtype=bool), "bool"),
        ("nothing", torch.zeros(0, 3), "empty"),
        ("epoch", 3, "type int: not a tensor"),
        ("meta", torch.zeros(2, 3, device="meta"), "meta device"),
        ("fc.parametrizations.weight.original0", torch.zeros(12, 1), "the module computes"),
        ("cls_token", torch.zeros(1, 1, 192), "is a vector"),
        ("sparse", torch.eye(4).to_sparse(), "sparse_coo"),
    ],
)
def test_what_is_skipped_has_a_reason(key, value, reason):
    inventory = open_source({key: value, "last": torch.zeros(4)})
    assert not inventory.layers
    assert reason in inventory.skipped[0].reason
    assert inventory.skipped[0].name == key


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("embeddings.word_embeddings.weight", "embedding"),
        ("model.embed_tokens.weight", "embedding"),
        ("wte.weight", "embedding"),
        ("encoder.dense.weight", "dense"),
    ],
)
def test_embeddings_are_told_by_name(key, kind):
    assert open_source({key: torch.zeros(4, 3)}).layers[0].layer_type == kind


def test_tied_tensors_are_marked():
    shared = torch.randn(6, 4)
    inventory = open_source({"wte.weight": shared, "head.weight": shared, "copy.weight": shared.clone(), "t": shared.T})
    assert [x.tied_to for x in inventory.layers] == [None, "wte", None, None]


def test_names_stay_unique():
    inventory = open_source({"a": torch.zeros(2, 2), "a.weight": torch.ones(2, 2)})
    assert [x.name for x in inventory.layers] == ["a", "a.weight"]


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("five", (2, 2, 2, 2, 2), [("five", "conv3d", (2, 2, 2, 2, 2))]),
        ("attn.in_proj_weight", (12, 4), [(f"attn.in_proj_weight[{p}]", "dense", (4, 4)) for p in "qkv"]),
        ("attn.c_attn.weight", (4, 12), [(f"attn.c_attn[{p}]", "dense", (4, 4)) for p in "qkv"]),
        ("rnn.weight_hh_l0_reverse", (12, 4), [(f"rnn.weight_hh_l0_reverse[{g}]", "gru", (4, 4)) for g in "rzn"]),
        ("rnn.weight_hh_l0", (16, 4), [(f"rnn.weight_hh_l0[{g}]", "lstm", (4, 4)) for g in "ifgo"]),
        ("pos_embed", (1, 197, 192), [("pos_embed", "embedding", (197, 192))]),
        ("dw.weight", (32, 1, 3, 3), [("dw", "conv2d", (32, 9))]),
        ("experts.weight", (3, 64, 64), [(f"experts[{i}]", "stack", (64, 64)) for i in range(3)]),
        ("embeddings.patch_embeddings.projection.weight", (6, 3, 8, 8), None),
        ("vision.patch_embedding.weight", (6, 3, 32, 32), None),
        ("pos_conv.weight", (6, 4, 128), [("pos_conv", "conv1d", (6, 4, 128))]),
        ("module._orig_mod.fc.weight", (6, 4), [("fc", "dense", (6, 4))]),
    ],
)
def test_names_and_shapes_tell_what_a_tensor_is(key, shape, expected):
    expected = expected or [(key.removesuffix(".weight"), "conv2d", shape)]
    weight = torch.randn(shape)
    layers = open_source({key: weight}).layers
    assert [(x.name, x.layer_type, x.shape) for x in layers] == expected
    assert all(tuple(x.load().shape) == x.shape for x in layers)


@pytest.mark.parametrize(
    "wrap", [lambda sd: {"model": sd, "step": 3}, lambda sd: {"state_dict": sd, "optimizer": {"a": 1}}]
)
def test_the_model_is_found_in_a_checkpoint(wrap):
    inventory = open_source(wrap({"fc.weight": torch.zeros(4, 3)}))
    assert [x.name for x in inventory.layers] == ["fc"]
    assert len(inventory.skipped) == 1
    assert "beside the model" in inventory.skipped[0].reason


def weights(seed, name="fc"):
    generator = torch.Generator().manual_seed(seed)
    return {f"{name}.weight": torch.randn(6, 5, generator=generator), f"{name}.bias": torch.zeros(6)}


@pytest.mark.parametrize(
    ("checkpoint", "names"),
    [
        ({"generator": weights(1), "discriminator": weights(2, "d")}, ["generator.fc", "discriminator.d"]),
        ({"netG": {"state_dict": weights(1)}, "netD": {"state_dict": weights(2)}, "step": 3}, ["netG.fc", "netD.fc"]),
        ({"model": weights(1), "ema": weights(2), "optimizer": {"state": {0: {"exp_avg": torch.ones(6, 5)}}}},
         ["model.fc", "ema.fc"]),
        ({"state_dict": weights(1), "model_ema": weights(2, "module.fc")}, ["state_dict.fc", "model_ema.fc"]),
        ({"model": weights(1), "ema": torch.optim.swa_utils.AveragedModel(nn.ModuleDict({"fc": nn.Linear(5, 6)})).state_dict()},
         ["model.fc", "ema.fc"]),
        ({"checkpoint": {"student": weights(1), "teacher": weights(2)}}, ["student.fc", "teacher.fc"]),
        ({"model": weights(1), "statistics": {"mean": torch.ones(4, 4)}}, ["fc"]),
        ({"model": weights(1), "optimizer_momentum": weights(2)}, ["fc"]),
        ({"model.fc.weight": torch.ones(6, 5), "model_ema.fcweight": torch.ones(6, 5)}, ["model.fc", "model_ema.fcweight"]),
    ],
)  # fmt: skip
def test_every_network_of_a_checkpoint_is_read(checkpoint, names, tmp_path):
    torch.save(checkpoint, tmp_path / "model.pt")
    for source in (checkpoint, tmp_path / "model.pt"):
        inventory = open_source(source)
        assert [layer.name for layer in inventory.layers] == names
        assert [layer.name for layer in inventory.layers if "EMA" in layer.note] == [x for x in names if "ema" in x]
        for layer, expected in zip(inventory.layers, [1, 2], strict=False):
            if "step" in checkpoint or "generator" in checkpoint:
                torch.testing.assert_close(layer.load(), next(iter(weights(expected).values())))


def test_a_checkpoint_that_contains_itself_has_one_network():
    checkpoint = {"model": weights(1), "extra": {"state": {0: {"exp_avg": torch.ones(6, 5)}}}}
    checkpoint["again"] = checkpoint
    assert {layer.name.rpartition(".")[2] for layer in open_source(checkpoint).layers} == {"fc"}


def test_names_must_be_strings():
    with pytest.raises(InputError, match="got the key 0"):
        open_source({0: torch.zeros(2, 2)})
