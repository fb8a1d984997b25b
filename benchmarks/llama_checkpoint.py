"""Write a checkpoint with the names and shapes of LLaMA-7B, one shard at a time, with spectra like those of trained weights."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, MLP, VOCABULARY, BLOCKS = 4096, 11008, 32000, 32
# Share of the directions that carry signal, and the exponent of its eigenvalues' power law.
SIGNAL_SHARE, ALPHA = 1 / 16, 3.0


def write_llama(
    folder: Path,
    *,
    blocks: int = BLOCKS,
    hidden: int = HIDDEN,
    mlp: int = MLP,
    vocabulary: int = VOCABULARY,
    seed: int = 0,
) -> int:
    """Write bfloat16 shards, their index and config.json into a folder, and return the bytes of all weights.

    All 32 blocks take 13 GB on disk. In memory is one shard: 0.4 GB for a block, 0.5 for the vocabulary in float32.
    """
    generator = torch.Generator().manual_seed(seed)
    shards = list(_shards(blocks, hidden, mlp, vocabulary))
    where: dict[str, str] = {}
    size = 0
    for number, shapes in enumerate(shards, start=1):
        tensors = {name: trained_weight(shape, generator) for name, shape in shapes.items()}
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_attention_heads": hidden // 128,
        "num_hidden_layers": blocks,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return size


def trained_weight(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return ones for a norm; for a matrix, Gaussian noise plus signal whose eigenvalues follow a power law above the noise.

    An eigenvalue that the fraction x of a power law exceeds is proportional to x^(-1 / (alpha - 1)). The weakest signal has the
    size of the noise's edge, (sqrt(N) + sqrt(M))^2 times the variance.
    """
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    N, M = shape
    rank = max(1, round(SIGNAL_SHARE * min(shape)))
    edge = N**0.5 + M**0.5
    # columns of Gaussians of these lengths are close to orthogonal
    singular = edge * (torch.arange(1, rank + 1) / rank) ** (-0.5 / (ALPHA - 1))
    left = torch.randn(N, rank, generator=generator) * (singular / (N * M) ** 0.5)
    weight = torch.randn(shape, generator=generator).addmm_(left, torch.randn(rank, M, generator=generator))
    return weight.mul_(0.5 / edge).to(torch.bfloat16)


def _shards(blocks: int, hidden: int, mlp: int, vocabulary: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield the shapes of each shard by name: the embedding, a block at a time, the head."""
    yield {"model.embed_tokens.weight": (vocabulary, hidden)}
    for number in range(blocks):
        shapes: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
        shapes |= {"mlp.gate_proj": (mlp, hidden), "mlp.up_proj": (mlp, hidden), "mlp.down_proj": (hidden, mlp)}
        shapes |= {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
        yield {f"model.layers.{number}.{name}.weight": shape for name, shape in shapes.items()}
    yield {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
