"""Powers of the singular values by decomposition: exact to rounding, the reference for everything faster.

Shapes: b matrices, m rows, n >= m columns.
"""

import torch
from torch import Tensor

# Singular values below this many eps of the largest count as rounding: in float32 and float64 SVDs of exactly
# rank-deficient matrices with sides of 128 to 2048, those that should be zero came out at 2 to 7 eps.
RANK_TOLERANCE = 16


def svd_power(X_bmn: Tensor, power: float, scale: str) -> Tensor:
    """Return U diag(s^p) V^T of finite float32 or float64 matrices by the singular value decomposition."""
    U, S, Vh = torch.linalg.svd(X_bmn, full_matrices=False)
    return (U * _powers(S, power, scale, RANK_TOLERANCE * torch.finfo(S.dtype).eps)[:, None, :]) @ Vh


def eigh_power(X_bmn: Tensor, power: float, scale: str) -> Tensor:
    """Return (X X^T)^((p - 1) / 2) X of finite matrices with m <= n by the float64 eigenvalues of X X^T.

    Squaring costs half the digits. Relative to the largest singular value, those of float32 matrices are right down to the
    float32 rank tolerance and those of float64 matrices down to about 1e-7; smaller ones count as zero.
    """
    top = X_bmn.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(X_bmn.dtype).tiny)
    X = (X_bmn / top).double()
    evals, U = torch.linalg.eigh(X @ X.mT)
    S = evals.clamp_min(0).sqrt()
    tolerance = max(RANK_TOLERANCE * torch.finfo(X_bmn.dtype).eps, (RANK_TOLERANCE * torch.finfo(S.dtype).eps) ** 0.5)
    factor = _powers(S, power, scale, tolerance) / S.clamp_min(torch.finfo(S.dtype).tiny)
    if scale == "raw":
        factor = factor * top[..., 0].double() ** power
    return (((U * factor[:, None, :]) @ U.mT) @ X).to(X_bmn.dtype)


def _powers(S: Tensor, power: float, scale: str, tolerance: float) -> Tensor:
    """Return the singular values of the result; those below the tolerance become zero, also for p <= 0."""
    top = S.amax(-1, keepdim=True)
    nonzero = S > tolerance * top
    powers = torch.where(nonzero, (S if scale == "raw" else S / top) ** power, 0)
    if scale == "match_muon":
        rank = nonzero.sum(-1, keepdim=True, dtype=S.dtype)
        powers *= rank.sqrt() / torch.linalg.vector_norm(powers, dim=-1, keepdim=True).clamp_min(1e-30)
    return powers
