"""Which section of a configuration describes a tensor: that of the part of the model around it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from htsr.weights import open_source
from htsr.weights.configs import nearest_config

VLM = {
    "model_type": "a_vlm",
    "text_config": {"model_type": "gpt_neox", "num_attention_heads": 4, "hidden_size": 24},
    "vision_config": {
        "model_type": "vit",
        "num_heads": 3,
        "hidden_size": 24,
        "sam_config": {"model_type": "sam", "num_heads": 2},
    },
    "audio_config": {"model_type": "ear"},
    "quantization_config": {"model_type": "none"},
}
THINKER = {"thinker_config": VLM, "talker_config": {"text_config": {"model_type": "talk"}}}
BOTH = {"encoder": {"model_type": "bert"}, "decoder": {"model_type": "gpt2"}, "is_encoder_decoder": True}


@pytest.mark.parametrize(
    ("key", "config", "model_type"),
    [
        ("model.language_model.layers.0.qkv.weight", VLM, "gpt_neox"),
        ("layers.0.attention.query_key_value.weight", VLM, "gpt_neox"),
        ("model.visual.blocks.0.attn.qkv.weight", VLM, "vit"),
        ("vision_tower.layers.0.attn.qkv.weight", VLM, "vit"),
        ("vision_tower.sam_encoder.layers.0.attn.qkv", VLM, "sam"),
        ("audio_tower.layers.2.fc", VLM, "ear"),
        ("thinker.visual.blocks.1.attn.qkv", THINKER, "vit"),
        ("thinker.model.layers.1.self_attn.q_proj", THINKER, "gpt_neox"),
        ("talker.model.layers.1.self_attn.q_proj", THINKER, "talk"),
        ("encoder.layer.3.attention.self.query", BOTH, "bert"),
        ("decoder.transformer.h.1.attn.c_attn", BOTH, "gpt2"),
        ("h.1.attn.c_attn", {"model_type": "gpt2", "encoder": {"depth": 3}, "task_config": 3}, "gpt2"),
    ],
)
def test_the_nearest_section_is_found(key, config, model_type):
    assert nearest_config(key, config)["model_type"] == model_type


def saved(path, tensors, config):
    path.mkdir(exist_ok=True, parents=True)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))


def test_language_and_vision_of_one_file_are_split_by_their_own_sections(tmp_path):
    # the same name and shape, stored head by head in one part of the model and as three blocks in the other
    weight = torch.arange(72.0)[:, None].repeat(1, 24)
    keys = {"t": "language_model.layers.0.attention.query_key_value", "v": "visual.blocks.0.attention.query_key_value"}
    saved(tmp_path, {f"{key}.weight": weight.clone() for key in keys.values()}, VLM)
    layers = {layer.name: layer.load()[:, 0].tolist() for layer in open_source(tmp_path).layers}
    assert layers[f"{keys['t']}[k]"] == [row for row in range(72) if 6 <= row % 18 < 12]
    assert layers[f"{keys['v']}[k]"] == list(range(24, 48))


def test_each_part_of_a_pipeline_follows_its_own_config(tmp_path):
    weight = torch.arange(72.0)[:, None].repeat(1, 24)
    parts = {"0_Bloom": {"model_type": "bloom", "n_head": 2, "hidden_size": 24}, "1_Vit": {"model_type": "vit"}}
    for folder, config in parts.items():
        saved(tmp_path / folder, {"h.0.query_key_value.weight": weight.clone()}, config)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": folder} for folder in parts]))
    layers = {layer.name: layer.load()[:, 0].tolist() for layer in open_source(tmp_path).layers}
    assert layers["0_Bloom.h.0.query_key_value[q]"] == [*range(12), *range(36, 48)]
    assert layers["1_Vit.h.0.query_key_value[q]"] == list(range(24))
