"""Unpack integers of a few bits, and 4-bit codes, from the words that hold them."""

import math

import torch
from torch.nn import functional as F


def unpack(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return ``count`` unsigned integers from each row of 32-bit words, which hold them in turn from the lowest bit on."""
    common = math.gcd(bits, 32)
    per_span, span = 32 // common, bits // common  # numbers that fill a whole number of words, and how many words
    words = F.pad(words.view(torch.int32), (0, -words.shape[-1] % span)).unflatten(-1, (-1, span))
    codes = torch.empty(*words.shape[:-1], per_span, dtype=torch.uint8)
    for position in range(per_span):
        word, shift = divmod(position * bits, 32)
        code = words[..., word] >> shift
        if shift + bits > 32:  # the number continues in the next word
            code = code & ((1 << (32 - shift)) - 1) | words[..., word + 1] << (32 - shift)
        codes[..., position] = code & ((1 << bits) - 1)
    return codes.flatten(-2)[..., :count]


def decode_pairs(packed: torch.Tensor, codebook: torch.Tensor, *, high_first: bool = False) -> torch.Tensor:
    """Return the values of bytes that hold two 4-bit codes each."""
    byte = torch.arange(256)
    nibbles = [byte >> 4, byte & 15] if high_first else [byte & 15, byte >> 4]
    pairs = torch.stack([codebook[nibble] for nibble in nibbles], 1)
    return F.embedding(packed.view(torch.uint8).to(torch.int32), pairs).flatten(-2)
