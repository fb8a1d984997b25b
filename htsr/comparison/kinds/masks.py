"""Pruning: one matrix is the other one with some values set to zero."""

from dataclasses import dataclass

import torch

from htsr.comparison.survey.differences import SAME, difference

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
    if int(torch.count_nonzero(a)) == int(torch.count_nonzero(b)):
        return None
    zeros_a, zeros_b = a == 0, b == 0
    for dense, zeros, removed, in_a in (
        (a, zeros_b, zeros_b & ~zeros_a, False),
        (b, zeros_a, zeros_a & ~zeros_b, True),
    ):
        count = int(removed.sum())
        if not count or bool((zeros_a & zeros_b).sum() < (zeros_b if in_a else zeros_a).sum()):
            continue
        pattern = _pattern(zeros, removed)
        if pattern == "single values" and count < LEAST_SHARE * a.numel():
            continue
        kept = dense.masked_fill(zeros, 0)
        pair = (b if not in_a else a, kept)
        if difference(*pair, tuple(range(a.ndim)), dtypes[::-1] if not in_a else dtypes).kind in SAME:
            return Mask(count / int((dense != 0).sum()), pattern, in_a)
    return None


def _pattern(zeros: torch.Tensor, removed: torch.Tensor) -> str:
    """Return where the zeros lie."""
    for name, axis in (("whole rows", 1), ("whole columns", 0)):
        lines = removed.any(axis)
        if torch.equal(zeros & lines.unsqueeze(axis), lines.unsqueeze(axis).expand_as(zeros)):
            return name
    for values in (zeros, zeros.mT):
        if values.shape[1] % 4 == 0 and bool((values.reshape(-1, 4).sum(1) == 2).all()):
            return "2 of every 4 values"
    return "single values"
