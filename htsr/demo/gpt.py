"""A small byte-level GPT.

Shapes: B batch, T positions, C channels, H heads, V vocabulary (256 bytes).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

VOCABULARY = 256


class Block(nn.Module):
    """Pre-norm attention and MLP; query, key and value are separate layers, so that each has its own spectrum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return the input plus attention, plus the MLP of that sum."""
        y_BTC = self.norm_attention(x_BTC)
        q, k, v = (
            layer(y_BTC).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x_BTC = x_BTC + self.output(attended)
        return x_BTC + self.down(gelu(self.up(self.norm_mlp(x_BTC))))


class GPT(nn.Module):
    """A Transformer that reads bytes and returns the logits of each next byte; ``heads`` must divide ``width``."""

    def __init__(self, context: int = 64, width: int = 128, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(
                    module.weight, std=0.02
                )  # GPT-2's std; torch's default of 1 is much larger than what the first blocks add

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits, shape (B, T, V)."""
        x_BTC = self.embedding(tokens_BT) + self.position.weight[: tokens_BT.shape[1]]
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return self.head(self.norm(x_BTC))

    def loss(self, sequence_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy of each byte given those before it, in nats; the model does not see the last byte."""
        logits = self(sequence_BT[:, :-1])
        return cross_entropy(logits.flatten(0, 1), sequence_BT[:, 1:].flatten())


def tokens(text: bytes) -> Tensor:
    """Return the bytes as a tensor of integers, shape (len(text),)."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
