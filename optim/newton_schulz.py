"""Powers of the singular values by Newton-Schulz steps: only matrix products, and the same ones for every power.

Shapes: b matrices, m rows, n >= m columns.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from htsr.optim.lanczos import largest_eigenvalue, spectral_norm
from htsr.optim.products import gram, quadratic, symmetric_product
from htsr.optim.quintics import TABLES, count_weights, power_weights

# Six steps take 12 n/m + 6 products of m x m matrices in the direct form and 5 n/m + 18 in the Gram form.
GRAM_FORM_FROM_ASPECT = 2.5
# Rounding leaves A with eigenvalues down to about -eps, and each step multiplies those by a^2, tenfold, until they explode. In
# float16, A must be computed again after three steps (after four, NaN came out on an H200); float32 bears five.
STEPS_BETWEEN_RESTARTS = {torch.float16: 3}
MOST_STEPS_BETWEEN_RESTARTS = 5
START_SIZE = 8.0  # largest norm of a row of the matrix whose Gram matrix is taken first

Weights = tuple[float, ...] | Tensor
Coefficients = tuple[tuple[float, float, float], ...]


def newton_schulz_power(
    G_bmn: Tensor, power: float, *, steps: int, dtype: torch.dtype, scale: str, compiled: bool = False
) -> tuple[Tensor, Tensor]:
    """Return powers of finite matrices, shape (b, m, n), and the share of singular values in the domain of the steps.

    ``dtype`` is that of the matrix products. The iterates are summed in bfloat16 if that is ``dtype``, and otherwise in the
    dtype of ``G_bmn``, but at least in float32.
    """
    number = torch.promote_types(G_bmn.dtype, torch.float32)
    weights, for_count = _constants(power, steps, number, G_bmn.device)
    if compiled:  # weights as tensors: torch.compile would take numbers as constants, and compile again for every p
        return _compiled()(G_bmn, weights, for_count, power, steps, dtype, scale)
    return _iterate(G_bmn, power_weights(power, steps), for_count, power, steps, dtype, scale)


def _iterate(
    G: Tensor, weights: Weights, for_count: Tensor, power: float, steps: int, dtype: torch.dtype, scale: str
) -> tuple[Tensor, Tensor]:
    """Divide by the Schatten-4 norm, which the first Gram matrix gives for free, sum the iterates and set the scale."""
    number = for_count.dtype
    tall = G.shape[-2] > G.shape[-1]
    tiny = torch.finfo(number).tiny
    top = torch.maximum(G.amax((-2, -1), keepdim=True), -G.amin((-2, -1), keepdim=True)).to(number).clamp_min(16 * tiny)
    start = START_SIZE / max(G.shape[-2:]) ** 0.5 / top  # keeps squares in float32's range, and A in float16's
    # scale before rounding, so that the rounding does not depend on the scale of G
    X = (G * start).to(torch.bfloat16 if dtype == torch.bfloat16 else number)
    X = X.mT.contiguous() if tall else X
    A = gram(X.to(dtype))
    schatten = torch.linalg.matrix_norm(A.to(number), keepdim=True).clamp_min(tiny).sqrt().to(X.dtype)
    X /= schatten
    schatten = schatten.to(number)
    A = (A / schatten.square()).to(dtype)

    # bfloat16 cannot hold the Gram form: 3 to 70 % error where the direct form has 1 to 2 %
    gram_form = X.shape[-1] >= GRAM_FORM_FROM_ASPECT * X.shape[-2] and dtype != torch.bfloat16
    Y, traces = (_gram_form if gram_form else _direct_form)(X, A, weights, TABLES[steps].coefficients, dtype, number)
    rank = (traces @ for_count).clamp(0, X.shape[-2])
    if scale == "match_muon":
        norm = torch.linalg.vector_norm(Y, dim=(-2, -1), keepdim=True, dtype=number)
        factor = rank.sqrt()[:, None, None] / norm.clamp_min(tiny)
    elif scale == "spectral":
        norm = (
            largest_eigenvalue(A.to(number)).clamp_min(tiny) ** (power / 2)
            if power >= 0
            else spectral_norm(Y.to(number))
        )
        factor = 1 / norm.clamp_min(tiny)
    else:
        factor = (schatten / start) ** power
    return (Y.mT.contiguous() if tall else Y).to(number).mul_(factor), rank / X.shape[-2]


def _direct_form(
    X: Tensor, A: Tensor, weights: Weights, coefficients: Coefficients, dtype: torch.dtype, number: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of the iterates X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, with traces to count the rank."""
    Y, X, traces = X * weights[0], X.to(dtype), []
    for k, (a, b, c) in enumerate(coefficients):
        A = gram(X) if k else A
        B = quadratic(A, b, c)
        traces.append(_traces(A, B, number))
        X = torch.baddbmm(X, B, X, beta=a)
        Y = _accumulate(Y, X, weights[k + 1])
    traces.append(torch.linalg.vector_norm(X, dim=(-2, -1), dtype=number).square()[:, None])
    return Y, torch.cat(traces, -1)


def _accumulate(Y: Tensor, X: Tensor, weight: float | Tensor) -> Tensor:
    """Return ``Y + weight X``, computed in place if the weight is a number."""
    return Y + (X * weight).to(Y.dtype) if isinstance(weight, Tensor) else Y.add_(X, alpha=weight)


def _gram_form(
    X: Tensor, A: Tensor, weights: Weights, coefficients: Coefficients, dtype: torch.dtype, number: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the same as ``_direct_form`` by X_k = Q_k X and A_k = Q_k A Q_k, so that most products are m x m."""
    Y, X, traces = X * weights[0], X.to(dtype), []
    last = len(coefficients)
    parts = max(2, -(-last // STEPS_BETWEEN_RESTARTS.get(dtype, MOST_STEPS_BETWEEN_RESTARTS)))
    for first, end in pairwise(last * i // parts for i in range(parts + 1)):
        Q = P = A
        for k in range(first, end):
            a, b, c = coefficients[k]
            Z = quadratic(A, b, c)
            traces.append(_traces(A, Z, number))
            Z.diagonal(dim1=-2, dim2=-1).add_(a)
            Q = symmetric_product(Q, Z) if k > first else Z
            P = _accumulate(P, Q, weights[k + 1]) if k > first else Q.to(Y.dtype) * weights[k + 1]
            if k + 1 < end:
                A = symmetric_product(Z, symmetric_product(A, Z))
        Y += (P.to(dtype) @ X).to(Y.dtype)
        if end < last:  # rounding in A hides s^2 < eps; by now the small s have grown, so compute A again
            X = Q @ X
            A = gram(X)
    traces.append((A @ Z).mul_(Z).sum((-2, -1), dtype=number)[:, None])
    return Y, torch.cat(traces, -1)


def _traces(A: Tensor, B: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the traces of A, A^2, A B and B^2, shape (b, 4)."""
    products = [(left * right).sum((-2, -1), dtype=dtype) for left, right in ((A, A), (A, B), (B, B))]
    return torch.stack([_trace(A, dtype), *products], -1)


def _trace(A: Tensor, dtype: torch.dtype) -> Tensor:
    return A.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=dtype)


@lru_cache(maxsize=1024)
def _constants(power: float, steps: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights of the iterates and of the traces, on the device."""
    weights, for_count = power_weights(power, steps), count_weights(steps)
    return torch.tensor(weights, dtype=dtype, device=device), torch.tensor(for_count, dtype=dtype, device=device)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_iterate)
