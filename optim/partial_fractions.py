"""Powers of the singular values by partial fractions of the Gram matrix: a few Cholesky factorisations in float32.

With A = X X^T, the matrix U S^p V^T is A^((p - 1) / 2) X, and

    A^((p - 1) / 2) ~ w_0 + w_1 (A / t_1 + 1)^-1 + w_2 (A / t_2 + 1)^-1 + ...

for shifts t_1 > t_2 > ... that fall geometrically from the largest eigenvalue of A to a fifth of the smallest. Only the
weights depend on p. Three terms serve rectangles of random entries, eight serve squares.

Shapes: m rows, n columns, k = min(m, n).
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from htsr.optim.lanczos import largest_eigenvalue, spectral_norm
from htsr.optim.resolution import RoundingNoise, relative_noise

RATIO = 10.0  # of successive shifts: no power of an eigenvalue is wrong by more than 0.6 %
REACH = 5.0  # N terms serve eigenvalues down to this multiple of the last shift
FEWEST_TERMS, MOST_TERMS = 3, 8  # the eighth shift is 1e-7 of the largest eigenvalue, about what float32 resolves
ABOVE = 1.2  # a few Lanczos steps may give the largest eigenvalue as this much smaller
LANCZOS_STEPS, POWER_STEPS = 6, 4
LOST = 2e-4  # what share of the squared result may be lost below the reach of the last term


def cholesky_power(G_mn: Tensor, power: float, scale: str) -> Tensor | None:
    """Return U diag(s^p) V^T of a finite matrix in float32, or None if float32 cannot give all its singular directions.

    It cannot if ``G_mn`` is in float64, or if singular values are too small beside the largest or drown in the rounding noise of
    the dtype of ``G_mn``.
    """
    if G_mn.dtype == torch.float64:
        return None
    tall = G_mn.shape[0] > G_mn.shape[1]
    low, high = torch.aminmax(G_mn)
    top = float(torch.maximum(-low, high))
    if top == 0:
        return None
    X = G_mn.float() / top
    A = X.mT @ X if tall else X @ X.mT
    largest = float(largest_eigenvalue(A[None], LANCZOS_STEPS))
    inverses = _inverses(A, largest)
    if inverses is None or not _above_noise(inverses, largest, X, G_mn.dtype):
        return None
    weights = fraction_weights(power, len(inverses))
    F = inverses[0].mul_(weights[1])
    for weight, inverse in zip(weights[2:], inverses[1:], strict=True):
        F.add_(inverse, alpha=weight)
    F.diagonal().add_(weights[0])
    Y = X @ F if tall else F @ X
    if scale == "raw":
        return Y.mul_(largest ** ((power - 1) / 2) * top**power)
    if scale == "match_muon":
        return Y.mul_(len(A) ** 0.5 / torch.linalg.vector_norm(Y))
    return Y.div_(spectral_norm(Y[None])[0])


def _inverses(A: Tensor, largest: float) -> list[Tensor] | None:
    """Return (A / t + 1)^-1 for every shift t until the smallest eigenvalue is within reach; None if it stays out of it."""
    shifts = largest * RATIO ** -np.arange(MOST_TERMS, dtype=np.float64)
    inverses: list[Tensor] = []
    last: Tensor | None = None
    for count, shift in enumerate(shifts[:-1], 1):
        inverse = _inverse(A, shift)
        if inverse is None:
            return None
        inverses.append(inverse)
        if count >= FEWEST_TERMS and _norm(inverse) <= 1 / (1 + REACH):
            return inverses
        if count == FEWEST_TERMS:  # whether all of them would do shows in the last one
            last = _inverse(A, shifts[-1])
            if last is None or float(torch.linalg.vector_norm(last)) ** 2 > LOST * len(A):
                return None
    return None if last is None else [*inverses, last]


def _inverse(A: Tensor, shift: float) -> Tensor | None:
    """Return (A / shift + 1)^-1, or None if A + shift is not positive definite in float32."""
    shifted = A.clone()
    shifted.diagonal().add_(shift)
    L, failed = torch.linalg.cholesky_ex(shifted)
    return None if failed else torch.cholesky_inverse(L).mul_(shift)


def _norm(inverse: Tensor) -> float:
    """Return the spectral norm of a positive definite matrix, from below, by the power iteration."""
    v = torch.randn(len(inverse), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(inverse)
    for _ in range(POWER_STEPS):
        v = inverse @ v
    return float(torch.linalg.vector_norm(inverse @ v) / torch.linalg.vector_norm(v))


def _above_noise(inverses: list[Tensor], largest: float, X_mn: Tensor, dtype: torch.dtype) -> bool:
    """Return whether every eigenvalue of the Gram matrix stands above the rounding noise of the entries.

    Each eigenvalue below a shift adds more than a half to the trace of its term, so twice the trace bounds their number.
    """
    reach = RATIO ** (-MOST_TERMS / 2)
    if 2 * relative_noise(dtype) < reach:  # no row or column is longer than the largest singular value
        return True
    traces = torch.stack([inverse.diagonal().sum(dtype=torch.float64) for inverse in inverses])
    counts = (2 * traces).clamp_max(len(inverses[0]))
    next_shifts = largest * RATIO ** -torch.arange(1, len(inverses) + 1, dtype=torch.float64)
    return bool((next_shifts > RoundingNoise(X_mn[None], dtype).norm(counts)[0].square()).all())


@lru_cache(maxsize=4096)
def fraction_weights(power: float, terms: int) -> tuple[float, ...]:
    """Return the weights w_0, ..., w_terms with the least squared relative errors of x^((p - 1) / 2)."""
    shifts = RATIO ** -np.arange(terms, dtype=np.float64)
    x = np.geomspace(REACH * shifts[-1], ABOVE, 300)
    basis = np.column_stack([np.ones_like(x), 1 / (x[:, None] / shifts + 1)]) * x[:, None] ** ((1 - power) / 2)
    return tuple(np.linalg.lstsq(basis, np.ones_like(x), rcond=None)[0].tolist())
