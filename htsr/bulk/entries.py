"""The shape of the distribution of a weight's entries."""

import math

import torch

# So many entries give the kurtosis of normal ones to 0.01.
SAMPLE_SIZE = 1 << 18
# An entry within so many standard deviations is never an outlier: one Laplace entry in 10^5 is larger.
MIN_OUTLIER = 8


def excess_kurtosis(weight: torch.Tensor) -> float:
    """Excess kurtosis of the entries about their mean: 0 for normal ones, 3 for Laplace, -1.2 for uniform ones.

    Args:
        weight: ``(out, in)`` or ``(out, in, *kernel)``, finite.

    Returns:
        Fourth central moment over the squared variance, minus 3; 0 if all entries are equal. Entries that would each cause a
        spike by themselves (more than ``(N M)^(1/4)`` standard deviations from the mean, the BBP threshold, and more than 8)
        are left out, because they are signal or a trap and not the shape of the noise. If the weight has more than 2^18
        entries, every k-th row of the longer side stands for it.
    """
    longer = weight.detach() if weight.shape[0] >= weight.shape[1] else weight.detach().transpose(0, 1)
    # a copy, which the next lines change
    sample = longer[:: math.ceil(weight.numel() / SAMPLE_SIZE)].to(torch.float64, copy=True)
    low, high = sample.aminmax()
    sample /= torch.maximum(-low, high).clamp_min(torch.finfo(torch.float64).tiny)  # no square over- or underflows
    squares = sample.sub_(sample.mean()).square_().flatten()
    bound = max(math.sqrt(weight.shape[0] * weight.shape[1]), MIN_OUTLIER**2) * squares.mean()
    if bound == 0:
        return 0.0
    if squares.max() > bound:
        squares = squares[squares <= bound]
    kurtosis = float((squares @ squares) * len(squares) / squares.sum() ** 2) - 3
    return max(-2.0, kurtosis)  # no distribution lies below -2, but rounding may
