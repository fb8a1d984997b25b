"""Which side of a matrix lies in the residual stream: by its role, and by shape only where no role is known."""

import pytest
import torch

from htsr.audit.tokens.stream import side_in_stream
from htsr.errors import InputError
from htsr.weights import Layer

D = 8


def layer(name, shape, kind="dense"):
    return Layer(name, name, kind, shape, torch.Tensor)


@pytest.mark.parametrize(
    ("name", "shape", "kind", "expected"),
    [
        ("encoder.layer.0.attention.output.dense", (D, D), "dense", ("out", "writes")),
        ("encoder.layer.0.output.dense", (D, 32), "dense", ("out", "writes")),
        ("encoder.layer.0.intermediate.dense", (32, D), "dense", ("in", "reads")),
        ("encoder.layer.0.attention.self.key", (D, D), "dense", ("in", "reads")),
        ("h.3.attn.c_proj", (D, D), "dense", ("out", "writes")),
        ("h.3.attn.c_attn[v]", (D, D), "dense", ("in", "reads")),
        ("layers.0.self_attn.q_proj[2]", (2, D), "dense", ("in", "reads")),  # one head
        ("layers.0.self_attn.o_proj[2]", (D, 2), "dense", ("out", "writes")),
        ("layers.0.mlp.gate_proj", (32, D), "dense", ("in", "reads")),
        ("model.embed_tokens", (100, D), "embedding", ("in", "writes")),
        ("lm_head", (100, D), "dense", ("in", "reads")),
        ("blocks.0.mystery", (D, 3), "dense", ("out", "writes")),  # no role, so its only side of that length
        ("blocks.0.mystery", (3, D), "dense", ("in", "reads")),
    ],
)
def test_side(name, shape, kind, expected):
    assert side_in_stream(layer(name, shape, kind), D) == expected


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "layers.0.self_attn.q_b_proj",
            (D, 3),
            "expected an input of the width",
        ),  # its output has that width by chance
        ("layers.0.mlp.down_proj", (5, D), "expected an output of the width"),
        ("blocks.0.mystery", (3, 5), "expected an output or an input of the width"),
        ("pooler.dense", (D, D), "say side='out' or side='in'"),
        ("conv", (D, D, 3, 3), "expected a matrix, got a kernel"),
    ],
)
def test_refusal(name, shape, said):
    with pytest.raises(InputError, match=said):
        side_in_stream(layer(name, shape), D)


def test_a_side_that_is_asked_for_must_fit():
    assert side_in_stream(layer("pooler.dense", (D, D)), D, "in") == ("in", "reads")
    with pytest.raises(InputError, match="expected an input"):
        side_in_stream(layer("layers.0.mlp.down_proj", (D, 32)), D, "in")
