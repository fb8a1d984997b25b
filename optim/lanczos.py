"""Largest eigenvalues and spectral norms of stacks of matrices by the Lanczos iteration."""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 32


def largest_eigenvalue(A_bmm: Tensor, steps: int = STEPS) -> Tensor:
    """Return the largest eigenvalues of positive semidefinite matrices, shape (b, 1, 1), approached from below."""
    return _lanczos(lambda v: A_bmm @ v, A_bmm, steps)


def spectral_norm(Y_bmn: Tensor) -> Tensor:
    """Return the largest singular values of matrices, shape (b, 1, 1), approached from below."""
    return _lanczos(lambda v: Y_bmn @ (Y_bmn.mT @ v), Y_bmn, STEPS).clamp_min(0).sqrt()


def _lanczos(apply: Callable[[Tensor], Tensor], like: Tensor, steps: int) -> Tensor:
    """Return the largest Ritz values of symmetric operators on the rows of ``like``."""
    b, m, _ = like.shape
    start = torch.randn(m, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    v = (start / start.norm()).expand(b, -1, -1)
    previous, beta = torch.zeros_like(v), like.new_zeros(b, 1, 1)
    steps = min(steps, m)
    T = like.new_zeros(b, steps, steps)
    for k in range(steps):
        w = apply(v) - beta * previous
        alpha = (v * w).sum((-2, -1), keepdim=True)
        T[:, k, k] = alpha[:, 0, 0]
        w = w - alpha * v
        beta = torch.linalg.vector_norm(w, dim=-2, keepdim=True)
        if k + 1 < steps:
            T[:, k, k + 1] = T[:, k + 1, k] = beta[:, 0, 0]
        previous, v = v, w / beta.clamp_min(torch.finfo(like.dtype).tiny)
    return torch.linalg.eigvalsh(T)[:, -1, None, None]
