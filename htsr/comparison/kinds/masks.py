"""Pruning: one matrix is the other one with some values set to zero."""

from dataclasses import dataclass

import torch

from htsr.comparison.survey.differences import SAME, difference
from htsr.comparison.survey.networks import squeezed

# A matrix counts as pruned if at least this share of its values became zero, or a whole row or column did.
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Mask:
    """How a matrix was pruned.

    Attributes:
        share: Share of the values, not zero before, that became zero.
        pattern: ``2 of every 4 values``, ``whole rows``, ``whole columns`` or ``single values``.
        in_a: Whether A is the pruned one.
    """

    share: float
    pattern: str
    in_a: bool


def mask_of(a: torch.Tensor, b: torch.Tensor, dtypes: tuple[str, str]) -> Mask | None:
    """Return how one of two matrices was pruned to give the other, up to rounding, or None."""
    zeros_in_a, zeros_in_b = (weight.numel() - int(torch.count_nonzero(weight)) for weight in (a, b))
    in_a = zeros_in_a > zeros_in_b
    dense, pruned = (b, a) if in_a else (a, b)
    more = abs(zeros_in_a - zeros_in_b)
    if not more:
        return None
    zeros = pruned == 0
    removed = zeros & (dense != 0)
    if int(torch.count_nonzero(removed)) != more:  # not every zero of the one is a zero of the other
        return None
    pattern = _pattern(zeros, removed)
    if pattern == "single values" and more < LEAST_SHARE * a.numel():
        return None
    kept = dense.masked_fill(zeros, 0)
    axes = tuple(range(len(squeezed(tuple(a.shape)))))
    if difference(pruned, kept, axes, dtypes if in_a else dtypes[::-1]).kind not in SAME:
        return None
    return Mask(more / int(torch.count_nonzero(dense)), pattern, in_a)


def _pattern(zeros: torch.Tensor, removed: torch.Tensor) -> str:
    """Return where the zeros lie."""
    for name, axis in (("whole rows", 1), ("whole columns", 0)):
        lines = removed.any(axis)
        if torch.equal(zeros & lines.unsqueeze(axis), lines.unsqueeze(axis).expand_as(zeros)):
            return name
    half = 2 * int(torch.count_nonzero(zeros)) == zeros.numel()
    for values in (zeros, zeros.mT):
        if half and values.shape[1] % 4 == 0 and bool((values.reshape(-1, 4).sum(1) == 2).all()):
            return "2 of every 4 values"
    return "single values"
