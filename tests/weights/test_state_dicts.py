"""Mappings of tensors and arrays."""

import numpy as np
import pytest
import torch
from torch import nn

from htsr import InputError
from htsr.weights.modules import read_module
from htsr.weights.state_dicts import read_state_dict


def test_a_state_dict_lists_what_its_module_lists():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 2))
    from_dict, from_module = read_state_dict(model.state_dict()), read_module(model)
    assert [(x.name, x.layer_type, x.shape) for x in from_dict.layers] == [
        (x.name, x.layer_type, x.shape) for x in from_module.layers
    ]


def test_arrays_of_any_byte_order_and_layout():
    a = np.random.default_rng(0).normal(size=(6, 4))
    inventory = read_state_dict(
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
        ("five", torch.zeros(2, 2, 2, 2, 2), "5-D"),
        ("nothing", torch.zeros(0, 3), "empty"),
        ("epoch", 3, "a int, not a tensor"),
        ("meta", torch.zeros(2, 3, device="meta"), "meta device"),
        ("attn.in_proj_weight", torch.zeros(12, 4), "stacked"),
        ("rnn.weight_hh_l0_reverse", torch.zeros(12, 4), "stacked"),
        ("fc.parametrizations.weight.original0", torch.zeros(12, 1), "the module computes"),
        ("parametrizations.weight.original1", torch.zeros(12, 4), "the module computes"),
        ("fc.weight_v", torch.zeros(12, 4), "the module computes"),
        ("fc.weight_mask", torch.zeros(12, 4), "the module computes"),
        ("cls_token", torch.zeros(1, 1, 192), "is a vector"),
        ("pos_embed", torch.zeros(1, 197, 192), "is a vector"),
        ("dw.weight", torch.zeros(32, 1, 3, 3), "is a vector"),
        ("experts.weight", torch.zeros(8, 64, 64), "last side above 31"),
        ("sparse", torch.eye(4).to_sparse(), "sparse_coo"),
        ("model", {"w": torch.zeros(3, 3)}, "pass source['model']"),
    ],
)
def test_what_is_skipped_has_a_reason(key, value, reason):
    inventory = read_state_dict({key: value})
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
    assert read_state_dict({key: torch.zeros(4, 3)}).layers[0].layer_type == kind


def test_tied_tensors_are_marked():
    shared = torch.randn(6, 4)
    inventory = read_state_dict(
        {"wte.weight": shared, "head.weight": shared, "copy.weight": shared.clone(), "t": shared.T}
    )
    assert [x.tied_to for x in inventory.layers] == [None, "wte", None, None]


def test_names_stay_unique():
    inventory = read_state_dict({"a": torch.zeros(2, 2), "a.weight": torch.ones(2, 2)})
    assert [x.name for x in inventory.layers] == ["a", "a.weight"]


def test_names_must_be_strings():
    with pytest.raises(InputError, match="got the key 0"):
        read_state_dict({0: torch.zeros(2, 2)})
