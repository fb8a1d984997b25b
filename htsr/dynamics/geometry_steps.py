"""Steps along U S^p V^T of a gradient G = U S V^T, at matched sizes, and what they would do to the loss.

Shapes: M rows, N columns, K = min(M, N).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htsr.optim.resolution import RoundingNoise, resolved

# Coefficients of the Newton-Schulz steps of Muon (K. Jordan 2024), of which torch.optim.Muon takes five.
MUON = ((3.4445, -4.7750, 2.0315),) * 5
# An output of Newton-Schulz below this counts as left behind; it brings most to 0.7 to 1.2.
LEFT_BEHIND = 0.5
# Errors of the square root of an eigenvalue of a Gram matrix in float64, as a share of the largest.
GRAM_ERROR = (16 * torch.finfo(torch.float64).eps) ** 0.5


@dataclass(frozen=True)
class Gradient:
    """A gradient and the decomposition of its smaller Gram matrix, in float64, over a scale that makes its largest entry 1."""

    U_K: Tensor  # singular vectors of the smaller side, as columns
    P_K: Tensor  # U^T G, or G U for a gradient with more rows than columns: the other side's, times the singular values
    S_K: Tensor  # singular values, descending; those that the entries do not resolve are left out
    is_wide: bool

    @classmethod
    def of(cls, gradient: Tensor) -> "Gradient | None":
        """Decompose a gradient; None if it is zero or not finite."""
        top = float(gradient.abs().max())
        if not 0 < top < math.inf:
            return None
        G = gradient.detach().to("cpu", torch.float64) / top
        is_wide = G.shape[0] <= G.shape[1]
        evals, U = torch.linalg.eigh(G @ G.mT if is_wide else G.mT @ G)
        S, U = evals.clamp_min(0).sqrt().flip(-1), U.flip(-1)
        kept = resolved(S[None], RoundingNoise(G[None], gradient.dtype), GRAM_ERROR)[0]
        U = U[:, kept]
        return cls(U, U.mT @ G if is_wide else G @ U, S[kept], is_wide)

    @property
    def nuclear_rank(self) -> float:
        """``(||G||_* / ||G||_F)^2``: K for a flat spectrum, 1 for rank one."""
        return float(self.S_K.sum() ** 2 / self.S_K.square().sum())

    def left_behind(self, coefficients: Sequence[tuple[float, float, float]]) -> float:
        """Return the share of the singular directions that these Newton-Schulz steps bring to less than a half."""
        x = self.S_K / self.S_K.norm()
        for a, b, c in coefficients:
            x = x * (a + b * x.square() + c * x.square().square())
        return float((x < LEFT_BEHIND).double().mean())

    def step(self, power: float) -> tuple[Tensor, float]:
        """Return the step of HTMuon at this power, and how much shorter the step of equal spectral norm is.

        The step is ``c U S^p V^T sqrt(max(1, M / N))`` with the Frobenius norm of Muon's, sqrt(rank) times that factor. The one
        of equal spectral norm has Muon's spectral norm instead; at p = 0 the two are the same, Muon's.
        """
        powers = (self.S_K / self.S_K[0]) ** power
        factors = powers / self.S_K
        D = (self.U_K * factors) @ self.P_K if self.is_wide else (self.P_K * factors) @ self.U_K.mT
        M, N = D.shape
        scale = math.sqrt(len(powers)) / float(powers.norm())
        return D * (scale * math.sqrt(max(1, M / N))), 1 / (scale * float(powers.max()))


@dataclass(frozen=True)
class Decrease:
    """What one step of a size t along a direction does to a loss, as L(W) - L(W - t D), and its quadratic model.

    Attributes:
        slope: ``<G, D>``, the decrease for each unit of t to first order.
        curvature: The second derivative of the loss in t, from the decrease that was measured at one t.
    """

    slope: float
    curvature: float

    @classmethod
    def measured(cls, slope: float, t: float, decrease: float) -> "Decrease":
        """Return the quadratic model through a measured decrease."""
        return cls(slope, 2 * (t * slope - decrease) / t**2)

    def at(self, t: float) -> float:
        """Return the decrease at another size of the step, by the quadratic model."""
        return t * self.slope - t**2 * self.curvature / 2
