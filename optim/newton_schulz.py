"""Powers of the singular values by Newton-Schulz steps: matrix products only, the same products for every power.

Shapes: b matrices, m rows, n >= m columns.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from htsr.optim.quintics import TABLES, power_weights, rank_weights

# Six steps are 12 n/m + 6 products of m x m matrices in the direct form, 5 n/m + 18 in the Gram form.
GRAM_FORM_FROM_ASPECT = 2.5
START_SIZE = 8.0  # rows of the matrix whose Gram matrix is taken first are at most this long
LANCZOS_STEPS = 32


def newton_schulz_power(
    X_bmn: Tensor, power: float, *, steps: int, dtype: torch.dtype, scale: str, compiled: bool = False
) -> Tensor:
    """Raise the singular values of matrices to a power by Newton-Schulz steps.

    Args:
        X_bmn: Finite matrices with m <= n, float32 or float64.
        power: p.
        steps: 5 to 9; ``quintics.TABLES`` has the domain of each.
        dtype: Of the matrix products.
        scale: ``raw``, ``spectral`` or ``match_muon``; see ``spectral_power``.
        compiled: Run it through ``torch.compile``.

    Returns:
        Shape (b, m, n), dtype of ``X_bmn``.
    """
    iterate = _compiled() if compiled else _iterate
    weights, for_rank = _constants(power, steps, X_bmn.dtype, X_bmn.device)
    return iterate(X_bmn, weights, for_rank, power, steps, dtype, scale)


def _iterate(
    X: Tensor, weights: Tensor, for_rank: Tensor, power: float, steps: int, dtype: torch.dtype, scale: str
) -> Tensor:
    """Normalise to Schatten-4 norm 1, which the first Gram matrix gives for nothing, sum the iterates, set the scale."""
    tiny = torch.finfo(X.dtype).tiny
    top = torch.maximum(X.amax((-2, -1), keepdim=True), -X.amin((-2, -1), keepdim=True)).clamp_min(16 * tiny)
    start = START_SIZE / X.shape[-1] ** 0.5 / top  # no square leaves the range of float32 or, of A, of float16
    X = X * start
    A = _gram(X.to(dtype))
    schatten = torch.linalg.matrix_norm(A.to(X.dtype), keepdim=True).clamp_min(tiny).sqrt()
    X /= schatten
    A = (A / schatten.square()).to(dtype)

    # bfloat16 cannot hold the Gram form: 3 to 70 % error where the direct form has 1 to 2 %
    gram_form = X.shape[-1] >= GRAM_FORM_FROM_ASPECT * X.shape[-2] and dtype != torch.bfloat16
    Y, traces = (_gram_form if gram_form else _direct_form)(X, A, weights, TABLES[steps].coefficients, dtype)
    if scale == "match_muon":
        rank = (traces @ for_rank).clamp(0, X.shape[-2])[:, None, None]
        return Y.mul_(rank.sqrt() / torch.linalg.matrix_norm(Y, keepdim=True).clamp_min(tiny))
    if scale == "spectral":
        return Y.mul_(_largest_eigenvalue(A.to(X.dtype)).clamp_min(tiny) ** (-power / 2))
    return Y.mul_((schatten / start) ** power)


def _direct_form(
    X: Tensor, A: Tensor, weights: Tensor, coefficients: tuple[tuple[float, float, float], ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the iterates X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, and the traces of the A_k."""
    Y, X, traces = X * weights[0], X.to(dtype), []
    for k, (a, b, c) in enumerate(coefficients):
        A = _gram(X) if k else A
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)
        traces.append(_traces(A, B, a, Y.dtype))
        X = torch.baddbmm(X, B, X, beta=a)
        Y.addcmul_(X.to(Y.dtype), weights[k + 1])
    return Y, torch.cat(traces, -1)


def _gram_form(
    X: Tensor, A: Tensor, weights: Tensor, coefficients: tuple[tuple[float, float, float], ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The same with X_k = Q_k X and A_k = Q_k A Q_k, so that most products are of m x m matrices."""
    Y, X, traces = X * weights[0], X.to(dtype), []
    restart, last = len(coefficients) // 2, len(coefficients)
    for first, end in ((0, restart), (restart, last)):
        Q = P = A
        for k in range(first, end):
            a, b, c = coefficients[k]
            Z = torch.baddbmm(A, A, A, beta=b, alpha=c)
            traces.append(_traces(A, Z, a, Y.dtype))
            Z.diagonal(dim1=-2, dim2=-1).add_(a)
            Q = Q @ Z if k > first else Z
            P = P + Q.to(Y.dtype) * weights[k + 1] if k > first else Q.to(Y.dtype) * weights[k + 1]
            if k + 1 < end:
                A = Z @ A @ Z
        Y += (P.to(dtype) @ X).to(Y.dtype)
        if end < last:  # rounding in A hides s^2 < eps; half way the small s have grown, and A is computed anew
            X = Q @ X
            A = _gram(X)
    return Y, torch.cat(traces, -1)


def _gram(X: Tensor) -> Tensor:
    return torch.bmm(X, X.mT)


def _traces(A: Tensor, B: Tensor, a: float, dtype: torch.dtype) -> Tensor:
    """Traces of A, A^2 and A (a + B), shape (b, 3)."""
    trace = A.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=dtype)
    return torch.stack([trace, (A * A).sum((-2, -1), dtype=dtype), a * trace + (A * B).sum((-2, -1), dtype=dtype)], -1)


def _largest_eigenvalue(A: Tensor) -> Tensor:
    """Of symmetric matrices with eigenvalues >= 0, by the Lanczos iteration from a fixed random start; shape (b, 1, 1)."""
    start = torch.randn(A.shape[-1], 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(A)
    v = (start / start.norm()).expand(len(A), -1, -1)
    previous, beta = torch.zeros_like(v), torch.zeros(len(A), 1, 1, dtype=A.dtype, device=A.device)
    steps = min(LANCZOS_STEPS, A.shape[-1])
    T = A.new_zeros(len(A), steps, steps)
    for k in range(steps):
        w = A @ v - beta * previous
        alpha = (v * w).sum((-2, -1), keepdim=True)
        T[:, k, k] = alpha[:, 0, 0]
        w = w - alpha * v
        beta = torch.linalg.vector_norm(w, dim=-2, keepdim=True)
        if k + 1 < steps:
            T[:, k, k + 1] = T[:, k + 1, k] = beta[:, 0, 0]
        previous, v = v, w / beta.clamp_min(torch.finfo(A.dtype).tiny)
    return torch.linalg.eigvalsh(T)[:, -1, None, None]


@lru_cache(maxsize=1024)
def _constants(power: float, steps: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weights of the iterates and of the traces, on the device."""
    weights, for_rank = power_weights(power, steps), rank_weights(steps)
    return torch.tensor(weights, dtype=dtype, device=device), torch.tensor(for_rank, dtype=dtype, device=device)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_iterate)
