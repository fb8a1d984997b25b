"""Interpolation: a matrix lies on the line between two others."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from htsr.comparison.kinds.precision import rounding_energy
from htsr.spectra.spectrum import BLOCK_ROWS

# What may be left of B - A beside t (C - A), as a share of its energy, if rounding does not account for it.
LEFT = 1e-4
# Energies of rounding errors that a mixture may carry: both products and their sum may have been rounded to the narrow type.
ROUNDINGS = 4.0


@dataclass(frozen=True)
class Mixture:
    """Where on the line from A to C the matrix B lies.

    Attributes:
        t: 0 at A, 1 at C; NaN if A and C are equal, or B differs from A by no more than rounding.
        residual: Norm of what is left of B - A, over that of B - A.
        fits: Whether so little is left that rounding can account for it.
    """

    t: float
    residual: float
    fits: bool


def mixture_of(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> Mixture:
    """Return where on the line from A to C the matrix B lies."""
    moved = apart = along = 0.0
    squares = np.zeros(3)
    for blocks in zip(*(weight.split(BLOCK_ROWS) for weight in (a, b, c)), strict=True):
        A, B, C = (block.to(torch.float64).reshape(-1) for block in blocks)
        squares += [float(block @ block) for block in (A, B, C)]
        change, whole = B - A, C - A
        moved, apart, along = (
            moved + float(change @ change),
            apart + float(whole @ whole),
            along + float(change @ whole),
        )
    if moved == 0:
        return Mixture(0.0 if apart else math.nan, 0.0, True)
    # B may be a mixture of what A and C were before they were rounded
    noise = sum(
        times * rounding_energy(W, square)
        for times, W, square in zip((1, ROUNDINGS, 1), (a, b, c), squares, strict=True)
    )
    if moved <= noise:
        return Mixture(math.nan, 0.0, True)
    left = max(moved - along**2 / apart, 0.0) if apart else moved
    return Mixture(along / apart if apart else math.nan, math.sqrt(left / moved), left <= max(LEFT * moved, noise))
