"""Norms of matrices, to 0.1 % at least: that is enough to tell what a step did from what its rule promises.

Shapes: b matrices, m rows (outputs), n columns (inputs), k = min(m, n).
"""

import math

import torch
from torch import Tensor

# Up to this side, all eigenvalues of the Gram matrix take no longer than the Lanczos iteration.
MAX_WHOLE = 512
# Lanczos stops once the residual bounds the error of the eigenvalue by this share of it, and that of the norm by half as much.
# The errors that were seen are a hundredth of this bound.
RESIDUAL, CHECK_EVERY, MAX_STEPS = 2e-3, 8, 300


def singular_values(X_bmn: Tensor) -> Tensor:
    """Return all singular values in descending order, shape (b, k), from the float64 Gram matrix; NaN if X is not finite."""
    return _from_gram(wide(X_bmn))


def spectral_norms(X_bmn: Tensor) -> Tensor:
    """Return the largest singular value of each matrix, shape (b,), in float64; NaN if the matrix is not finite."""
    X = wide(X_bmn)
    if X.numel() == 0:
        return X.new_zeros(len(X))
    # float32 gives six digits in half the time; on GPUs its products may have three digits only (TF32)
    dtype = torch.float32 if X.device.type == "cpu" else torch.float64
    if min(X.shape[-2:]) <= MAX_WHOLE:
        return _from_gram(X, dtype)[:, 0]
    return torch.stack([_lanczos(matrix, dtype) for matrix in X])


def frobenius_norms(X_bmn: Tensor) -> Tensor:
    """Return the Frobenius norm of each matrix, shape (b,)."""
    return torch.linalg.vector_norm(wide(X_bmn), dim=(-2, -1))


def rms_factor(rows: int, columns: int) -> float:
    """Return what turns the spectral norm into the operator norm between root mean squares: sqrt(n_in / n_out)."""
    return math.sqrt(columns / rows)


def wide(X: Tensor) -> Tensor:
    """Return a tensor in float64, which Apple's GPUs do not have."""
    return X.detach().to("cpu" if X.device.type == "mps" else X.device, torch.float64)


def _largest(X_bmn: Tensor) -> Tensor:
    """Return the largest magnitude of each matrix, 1 for a matrix of zeros, shape (b, 1, 1): squares must not underflow."""
    largest = X_bmn.abs().amax((-2, -1), keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def _from_gram(X_bmn: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return all singular values from the Gram matrix of the smaller side in this type."""
    finite = X_bmn.isfinite().all(-1).all(-1)[:, None]
    X = torch.where(finite[..., None], X_bmn, 0.0)
    scale = _largest(X)
    X = (X / scale).to(dtype)
    gram = X @ X.mT if X.shape[-2] <= X.shape[-1] else X.mT @ X
    values = torch.linalg.eigvalsh(gram).double().flip(-1).clamp_min(0).sqrt() * scale[:, 0]
    return torch.where(finite, values, math.nan)


def _lanczos(X_mn: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest singular value of one matrix by the Lanczos iteration with full reorthogonalisation."""
    scale = _largest(X_mn[None])[0, 0, 0]
    if not scale.isfinite():
        return torch.full_like(scale, math.nan)
    A = (X_mn / scale).to(dtype)
    A = A if len(A) <= A.shape[1] else A.mT
    start = torch.randn(len(A), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(A)
    basis = [start / start.norm()]
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for step in range(1, MAX_STEPS + 1):
        w = A @ (A.mT @ basis[-1])
        alphas.append(basis[-1] @ w)
        V = torch.stack(basis)
        for _ in range(2):  # once leaves what rounding adds back
            w = w - V.mT @ (V @ w)
        beta = w.norm()
        if step % CHECK_EVERY == 0 or step == len(A) or beta == 0:
            T = torch.diag(torch.stack(alphas))
            if betas:
                T = T + torch.diag(torch.stack(betas), 1) + torch.diag(torch.stack(betas), -1)
            values, vectors = torch.linalg.eigh(T.double())
            if step == len(A) or beta * vectors[-1, -1].abs() <= RESIDUAL * values[-1]:
                break
        betas.append(beta)
        basis.append(w / beta)
    return values[-1].clamp_min(0).sqrt() * scale
