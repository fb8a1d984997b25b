"""The leading singular directions of a matrix."""

import numpy as np
import torch

# Up to this many rows or columns, LAPACK decomposes the smaller Gram matrix whole; above, Lanczos finds its leading eigenvectors.
# On one core, 10 directions of Gaussian noise, the slowest case, take 0.4 s and 0.2 s at 1024, 3.1 s and 1.1 s at 2048.
MAX_WHOLE = 1024


def leading_directions(W_NM: torch.Tensor, k: int, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k largest singular values of a finite matrix, and their left and right vectors as columns, in float64.

    Those whose squares rounding to float64 can account for, or that are at most ``floor``, are left out: a matrix of rank r has
    at most r.
    """
    A = W_NM.detach().to("cpu", torch.float64).numpy()
    largest = np.abs(A).max(initial=0.0)
    if largest == 0:
        return np.empty(0), np.empty((len(A), 0)), np.empty((A.shape[1], 0))
    A = A / largest  # squares must not overflow
    tall = A if A.shape[0] >= A.shape[1] else A.T
    N, M = tall.shape
    gram = tall.T @ tall
    if M <= MAX_WHOLE or 4 * k >= M:
        evals, vectors = np.linalg.eigh(gram)
    else:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).standard_normal(M)  # a constant one could be orthogonal to a direction
        evals, vectors = eigsh(gram, k, which="LA", v0=start)
        order = np.argsort(evals)
        evals, vectors = evals[order], vectors[:, order]
    evals, short = evals[::-1][:k], vectors[:, ::-1][:, :k]
    # eigenvalues of a float64 Gram matrix are exact to about N eps times the largest
    kept = (evals > N * np.finfo(np.float64).eps * evals[0]) & (np.sqrt(evals.clip(0)) * largest > np.sqrt(floor))
    evals, short = evals[kept], short[:, kept]
    long = tall @ short
    long /= np.linalg.norm(long, axis=0)
    left, right = (long, short) if A.shape[0] >= A.shape[1] else (short, long)
    return np.sqrt(evals) * largest, left, right
