"""A small language model on disk, with a vocabulary of 400 words."""

import json

import pytest
import torch
from safetensors.torch import save_file

D, FF, V = 40, 60, 400
LAYER = "model.layers.0."
DOWN, UP, OUT, Q = (
    f"{LAYER}{name}" for name in ("mlp.down_proj", "mlp.up_proj", "self_attn.o_proj", "self_attn.q_proj")
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights():
    """Weights of a decoder whose embedding is far from centred."""
    shapes = {DOWN: (D, FF), UP: (FF, D), OUT: (D, D), Q: (D, D), "lm_head": (V, D), "model.embed_tokens": (V, D)}
    found = {f"{name}.weight": normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    found["lm_head.weight"] += 5
    return found


def write(folder, tensors, words=V, config=None):
    """Write a directory as transformers does."""
    tokenizers = pytest.importorskip("tokenizers")
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    vocabulary = {f"w{number}": number for number in range(words)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0")).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config or {"architectures": ["LlamaForCausalLM"]}))
    return folder


def row_of(tensors, number, name="lm_head.weight"):
    """The direction of a token: its row less the mean, a unit vector."""
    E = tensors[name]
    return torch.nn.functional.normalize(E[number] - E.mean(0), dim=0)


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model", weights())
