"""Fused query, key and value weights against the reshapes in the code of each model, and configurations with odd values."""

import pytest
import torch

from htsr.weights.attention import Heads, fused_parts
from htsr.weights.configs import nearest_config
from htsr.weights.parts import Part
from htsr.weights.source import open_source

SIZE, HIDDEN = 6, 40


def split(key, tensor, config):
    parts, note = fused_parts(key, Part(tuple(tensor.shape)), Heads.of(nearest_config(key, config)))
    return {part.label: part.cut(tensor) for part in parts}, note


def by_head(weight, num, num_kv):
    groups = weight.reshape(num_kv, num // num_kv + 2, SIZE, -1)
    return (
        groups[:, :-2].reshape(num * SIZE, -1),
        groups[:, -2].reshape(num_kv * SIZE, -1),
        groups[:, -1].reshape(num_kv * SIZE, -1),
    )


def blocks(weight, num, num_kv):
    return weight.split([num * SIZE, num_kv * SIZE, num_kv * SIZE])


def codegen(weight, num, num_kv):
    # modeling_codegen.CodeGenAttention.forward: four blocks, each split into query, value, key
    query, value, key = weight.reshape(4, 3, -1, weight.shape[1]).unbind(1)
    return query.reshape(num * SIZE, -1), key.reshape(num * SIZE, -1), value.reshape(num * SIZE, -1)


@pytest.mark.parametrize(
    ("key", "config", "num", "num_kv", "truth"),
    [
        ("h.3.attn.qkv_proj.weight", {"model_type": "codegen", "n_head": 8}, 8, 8, codegen),
        ("h.0.attn.c_attn.weight", {"model_type": "gpt_bigcode", "n_head": 4, "multi_query": False}, 4, 4, by_head),
        ("h.0.attn.c_attn.weight", {"model_type": "gpt_bigcode", "n_head": 4, "multi_query": True}, 4, 1, blocks),
        ("x.attention.query_key_value.weight", {"model_type": "gpt_neox", "num_attention_heads": 5}, 5, 5, by_head),
        ("x.self_attention.query_key_value.weight", {"model_type": "bloom", "n_head": 3}, 3, 3, by_head),
        ("x.query_key_value", {"model_type": "falcon", "num_attention_heads": 4, "multi_query": True}, 4, 1, blocks),
        ("x.query_key_value", {"model_type": "falcon", "num_attention_heads": 4, "multi_query": False}, 4, 4, by_head),
        (
            "x.query_key_value",
            {"model_type": "falcon", "num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True,
             "multi_query": True},
            4, 2, by_head,
        ),
        ("a.attention.wqkv.weight", {"model_type": "internlm2", "n_head": 6, "n_head_kv": 2}, 6, 2, by_head),
        ("a.query_key_value", {"model_type": "chatglm", "num_attention_heads": 4, "multi_query_attention": True,
                               "multi_query_group_num": 2}, 4, 2, blocks),
        ("d.0.self_attention.linear_qkv.weight", {"num_attention_heads": 6, "num_query_groups": 3}, 6, 3, by_head),
        ("d.self_attn.qkv_proj.weight", {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2}, 4, 2, blocks),
        ("d.attn.Wqkv.weight", {"model_type": "dbrx", "n_heads": 4, "attn_config": {"kv_n_heads": 2}}, 4, 2, blocks),
        ("d.attention.self.in_proj.weight", {"model_type": "deberta", "num_attention_heads": 4}, 4, 4, by_head),
        ("vision.attn.qkv.weight", {"model_type": "internlm2", "num_attention_heads": 4}, 4, 4, blocks),
    ],
)  # fmt: skip
def test_a_fused_weight_is_split_as_its_model_splits_it(key, config, num, num_kv, truth):
    weight = torch.randn((num + 2 * num_kv) * SIZE, HIDDEN, generator=torch.Generator().manual_seed(num))
    found, note = split(key, weight, {"head_dim": SIZE, **config})
    assert not note
    for label, expected in zip(("[q]", "[k]", "[v]"), truth(weight, num, num_kv), strict=True):
        torch.testing.assert_close(found[label], expected, rtol=0, atol=0)


LINEAR = {"linear_num_key_heads": 2, "linear_key_head_dim": 5, "linear_num_value_heads": 6, "linear_value_head_dim": 3}
LATENT = {"num_attention_heads": 4, "qk_nope_head_dim": 5, "qk_rope_head_dim": 2, "v_head_dim": 3}


@pytest.mark.parametrize(
    ("key", "config", "groups", "parts"),
    [
        ("l.0.self_attn.kv_b_proj.weight", LATENT, 4, {"k": 5, "v": 3}),
        ("l.0.self_attn.q_gate_proj.weight", LATENT, 4, {"q": 7, "gate": 3}),
        ("l.0.linear_attn.in_proj_qkv.weight", LINEAR, 1, {"q": 10, "k": 10, "v": 18}),
        ("l.0.linear_attn.in_proj_qkvz.weight", LINEAR, 2, {"q": 5, "k": 5, "v": 9, "z": 9}),
        ("l.1.self_attn.q_proj.weight", {"model_type": "qwen3_next", "num_attention_heads": 3}, 3, {"q": 6, "gate": 6}),
        ("l.1.self_attn.q_proj", {"model_type": "qwen3_5_moe_text", "num_attention_heads": 2}, 2, {"q": 6, "gate": 6}),
        ("l.1.self_attn.qkv_proj", {"model_type": "minimax", "num_attention_heads": 4, "num_key_value_heads": 2}, 4,
         {"q": 6, "k": 6, "v": 6}),
    ],
)  # fmt: skip
def test_sizes_in_the_configuration_tell_the_layout(key, config, groups, parts):
    weight = torch.randn(groups * sum(parts.values()), HIDDEN, generator=torch.Generator().manual_seed(groups))
    found, note = split(key, weight, {"head_dim": SIZE, **config})
    cut = weight.reshape(groups, -1, HIDDEN).split(list(parts.values()), dim=1)  # the split that the models make
    assert not note
    assert list(found) == [f"[{name}]" for name in parts]
    for tensor, expected in zip(found.values(), cut, strict=True):
        torch.testing.assert_close(tensor, expected.reshape(-1, HIDDEN), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("l.0.self_attn.kv_b_proj.weight", {}),
        ("l.0.self_attn.kv_b_proj.weight", {**LATENT, "num_attention_heads": 5}),
        ("l.0.linear_attn.in_proj_qkv.weight", {"model_type": "qwen3_5", **LINEAR, "linear_num_key_heads": 4}),
        ("l.0.self_attn.compressor.kv_proj.weight", {"model_type": "deepseek_v4", "num_attention_heads": 4, "head_dim": 24}),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_leave_one_matrix(key, config):
    found, note = split(key, torch.zeros(32 if "kv_b" in key else 48, 24), config)
    assert list(found) == [""]
    assert note or "kv_proj" in key


@pytest.mark.parametrize(
    "key",
    [
        "decoder.layers.0.self_attention.linear_qkv.weight",
        "layers.0.attention.query_key_value.weight",
        "transformer.h.0.attn.qkv_proj.weight",
        "decoder.layers.7.cross_attention.linear_kv.weight",
        "blocks.1.kv_proj.weight",
        "blocks.1.linear_attn.in_proj_qkv.weight",
    ],
)
def test_a_layout_that_nothing_decides_stays_one_matrix_with_a_note(key):
    found, note = split(key, torch.zeros(72, 24), {})
    assert [(label, tuple(part.shape)) for label, part in found.items()] == [("", (72, 24))]
    assert "analysed as one matrix" in note


@pytest.mark.parametrize("config", [
    {"model_type": [1]},
    {"num_attention_heads": 10**400, "hidden_size": float("nan")},
    {"num_attention_heads": 4, "num_key_value_heads": 3, "head_dim": 6, "model_type": "gpt_neox"},
    {"num_attention_heads": 7, "hidden_size": 24, "model_type": "bloom"},
    {"text_config": {"text_config": [None]}, "attn_config": "flash"},
])  # fmt: skip
def test_a_config_of_odd_values_gives_no_split_of_heads(config):
    found, _ = split("x.query_key_value.weight", torch.zeros(60, 24), config)
    assert all(part.shape[1] == 24 for part in found.values())
    assert list(found) == [""]


def test_a_deeply_nested_config_does_not_recurse():
    config = {}
    for _ in range(5000):
        config = {"text_config": config}
    assert Heads.of(nearest_config("layers.0.qkv", config)).num is None


@pytest.mark.parametrize("rows", [96, 128, 160, 200])
def test_a_fused_weight_of_unknown_sizes_is_not_split(rows):
    # 2 x 64 rows are key and value in GCViT, and a query with fewer keys elsewhere
    (layer,) = open_source({"blocks.1.attn.qkv.weight": torch.zeros(rows, 64)}).layers
    assert layer.shape == (rows, 64)
    assert "unknown" in layer.note
