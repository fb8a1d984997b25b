"""Powers of the singular values by decomposition: exact to rounding, the reference for everything faster.

Shapes: b matrices, m rows, n columns, k = min(m, n). Each function returns the powers and the share of the k singular
directions that the matrix resolves; the others stay zero, also for p <= 0.
"""

import torch
from torch import Tensor

from htsr.optim.resolution import RoundingNoise, resolved

# Errors of calculated singular values and eigenvalues, in eps of the largest.
ROUNDING = 16


def svd_power(G_bmn: Tensor, power: float, scale: str) -> tuple[Tensor, Tensor]:
    """Return U diag(s^p) V^T of finite matrices by the float64 singular value decomposition."""
    X, top = _scaled(G_bmn)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    floor = ROUNDING * torch.finfo(torch.float64).eps
    powers, share = _powers(S, top, power, scale, resolved(S, RoundingNoise(X, G_bmn.dtype), floor))
    return (U * powers[:, None, :]) @ Vh, share


def eigh_power(G_bmn: Tensor, power: float, scale: str) -> tuple[Tensor, Tensor]:
    """Return U diag(s^p) V^T of finite matrices by the float64 eigenvalues of the Gram matrix of the small side.

    Squaring costs half the digits, which float64 has and which leaves those of float32 matrices right. Matrices in float64
    go to ``svd_power``.
    """
    if G_bmn.dtype == torch.float64:
        return svd_power(G_bmn, power, scale)
    tall = G_bmn.shape[-2] > G_bmn.shape[-1]
    X, top = _scaled(G_bmn)
    evals, U = torch.linalg.eigh(X.mT @ X if tall else X @ X.mT)
    S, U = evals.clamp_min(0).sqrt().flip(-1), U.flip(-1)
    floor = (ROUNDING * torch.finfo(torch.float64).eps) ** 0.5
    powers, share = _powers(S, top, power, scale, resolved(S, RoundingNoise(X, G_bmn.dtype), floor))
    factor = powers / S.clamp_min(torch.finfo(S.dtype).tiny)
    F = (U * factor[:, None, :]) @ U.mT
    return (X @ F if tall else F @ X), share


def _scaled(G: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrices in float64 with a largest entry of 1, and what they were divided by, shape (b, 1)."""
    X = (G.cpu() if G.device.type == "mps" else G).double()  # that device has no float64
    top = X.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(X.dtype).tiny)
    return X / top, top[..., 0]


def _powers(S: Tensor, top: Tensor, power: float, scale: str, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the singular values of the result, and the share of them that is kept; S are those of the scaled matrix."""
    powers = torch.where(kept, (S if scale == "raw" else S / S[:, :1]) ** power, 0)
    if scale == "raw":
        powers = powers * top**power
    elif scale == "match_muon":
        rank = kept.sum(-1, keepdim=True, dtype=S.dtype)
        powers = powers * rank.sqrt() / torch.linalg.vector_norm(powers, dim=-1, keepdim=True).clamp_min(1e-30)
    elif scale == "spectral":  # below p = 0 the smallest singular value has the largest power
        powers = powers / powers.amax(-1, keepdim=True).clamp_min(1e-30)
    return powers, kept.double().mean(-1)
