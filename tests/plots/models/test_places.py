"""Block and role of a layer, from the names of many architectures."""

import pytest

from htsr.audit.phases import PHASES
from htsr.plots import places
from htsr.plots.models.phases import PHASE_COLOURS
from htsr.plots.models.places import by_depth

NAMES = {
    "encoder.layer.10.attention.self.query": ("encoder.layer.10", "q"),
    "encoder.layer.2.attention.output.dense": ("encoder.layer.2", "o"),
    "encoder.layer.2.intermediate.dense": ("encoder.layer.2", "up"),
    "encoder.layer.2.output.dense": ("encoder.layer.2", "down"),
    "pooler.dense": ("", "other"),
    "embeddings.word_embeddings": ("", "embedding"),
    "lm_head": ("", "head"),
    "output": ("", "head"),
    "h.3.attn.c_attn": ("h.3", "qkv"),
    "h.3.attn.c_attn[q]": ("h.3", "q"),
    "h.3.attn.c_proj": ("h.3", "o"),
    "h.3.mlp.c_fc": ("h.3", "up"),
    "h.3.mlp.c_proj": ("h.3", "down"),
    "model.layers.12.self_attn.k_proj": ("model.layers.12", "k"),
    "model.layers.12.mlp.gate_proj": ("model.layers.12", "gate"),
    "model.layers.12.mlp.gate_up_proj[gate]": ("model.layers.12", "gate"),
    "model.layers.12.block_sparse_moe.gate": ("model.layers.12", "router"),
    "model.layers.12.block_sparse_moe.experts.7.w2": ("model.layers.12", "down"),
    "layers.2.blocks.5.attn.qkv": ("layers.2.blocks.5", "qkv"),
    "blk.3.attn_v": ("blk.3", "v"),
    "blk.3.attn_output": ("blk.3", "o"),
    "blk.3.ffn_down": ("blk.3", "down"),
    "encoder.block.3.layer.0.SelfAttention.o": ("encoder.block.3", "o"),
    "encoder.block.3.layer.1.DenseReluDense.wo": ("encoder.block.3", "down"),
    "decoder.block.3.layer.1.EncDecAttention.q": ("decoder.block.3", "q"),
    "gpt_neox.layers.4.attention.query_key_value": ("gpt_neox.layers.4", "qkv"),
    "gpt_neox.layers.4.attention.dense": ("gpt_neox.layers.4", "o"),
    "gpt_neox.layers.4.mlp.dense_h_to_4h": ("gpt_neox.layers.4", "up"),
    "layers.0.self_attn.in_proj_weight[v]": ("layers.0", "v"),
    "layers.0.self_attn.out_proj": ("layers.0", "o"),
    "layers.0.linear2": ("layers.0", "down"),
    "blocks.1.output": ("blocks.1", "o"),
    "layer4.2.conv3": ("layer4.2", "other"),
}


@pytest.mark.parametrize("name", NAMES)
def test_block_and_role_stand_in_the_name(name):
    (place,) = places([name])
    assert (place.label, place.role) == NAMES[name]


def test_types_tell_embeddings_and_convolutions():
    assert [place.role for place in places(["a", "layer4.2.conv3"], ["embedding", "conv2d"])] == ["embedding", "conv"]


def test_blocks_are_counted_in_their_natural_order_and_encoders_first():
    names = [f"{side}.layers.{i}.fc1" for side in ("decoder", "encoder") for i in (10, 11, 2)]
    assert [place.block for place in places(names)] == [4, 5, 3, 1, 2, 0]


def test_embeddings_come_first_and_heads_last():
    names = ["lm_head", "model.layers.10.q_proj", "model.layers.2.q_proj", "model.embed_tokens"]
    assert by_depth(places(names)) == [3, 2, 1, 0]


def test_every_phase_has_a_colour():
    assert tuple(PHASE_COLOURS) == PHASES
