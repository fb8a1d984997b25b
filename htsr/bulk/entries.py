"""The entries of a weight, as noise would have them."""

import math

import torch

# Entries that are looked at: they give the kurtosis of normal entries to 0.01.
SAMPLE = 1 << 18
# Standard deviations up to which an entry is never an outlier: one Laplace entry in 10^5 is larger.
LARGEST = 8


def excess_kurtosis(weight: torch.Tensor) -> float:
    """Excess kurtosis of the entries about their mean: 0 for normal ones, 3 for Laplace, -1.2 for uniform ones.

    Args:
        weight: ``(out, in)`` or ``(out, in, *kernel)``, finite.

    Returns:
        Fourth central moment over the squared variance, less 3; 0 if all entries are equal. Entries so large that each
        would show as a spike by itself (more than ``(N M)^(1/4)`` standard deviations from the mean, the BBP threshold,
        and more than 8) are left out: they are signal, or a trap, and not the shape of the noise. Of a weight with more
        than 2^18 entries every k-th row of the longer side counts.
    """
    longer = weight.detach() if weight.shape[0] >= weight.shape[1] else weight.detach().transpose(0, 1)
    sample = longer[:: math.ceil(weight.numel() / SAMPLE)].to(torch.float64)
    sample = sample / sample.abs().max().clamp_min(torch.finfo(torch.float64).tiny)  # no square leaves the range
    squares = (sample - sample.mean()).square_().flatten()
    bound = max(math.sqrt(weight.shape[0] * weight.shape[1]), LARGEST**2) * squares.mean()
    if bound == 0:
        return 0.0
    if squares.max() > bound:
        squares = squares[squares <= bound]
    return max(
        -2.0, float((squares @ squares) * len(squares) / squares.sum() ** 2) - 3
    )  # rounding may fall below the least
