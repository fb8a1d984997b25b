"""Whether a change has any direction that is stronger than in noise whose values have the same sizes."""

import torch

# The leading singular value is found by a few rounds of subspace iteration: within 2 % of the edge of noise, and closer beyond.
VECTORS, ROUNDS = 8, 12
# Beyond this many times the largest norm of random signs, a change has structure.
CLEAR = 1.5


def above_noise(change: torch.Tensor, largest: float) -> float:
    """Return the largest eigenvalue of ``change^T change`` over that of the same change with random signs; about 1 for noise.

    Random signs keep the size of every value, and so the noise of rows and columns of unequal size, and destroy all structure.
    ``largest`` is that eigenvalue, or 0 if rounding can account for it. Where it is clear without the random signs that it is
    larger, the ratio is a lower bound.
    """
    change = change.to(torch.promote_types(change.dtype, torch.float32))
    scale = float(change.abs().max())  # so that no square underflows
    change = change / scale
    rows, columns = (float(torch.linalg.vector_norm(change, dim=axis).max()) for axis in (1, 0))
    most = (rows + columns) ** 2  # random signs hardly exceed it (Bandeira and van Handel 2016, theorem 1.1)
    if largest / scale**2 > CLEAR * most:
        return largest / scale**2 / most
    random = torch.Generator().manual_seed(change.numel())
    signs = torch.randint(0, 2, change.shape, generator=random, dtype=torch.int8).to(change.device, change.dtype)
    start = torch.randn(change.shape[1], VECTORS, generator=random).to(change.device, change.dtype)
    return _largest(change, start) / _largest(signs.mul_(2).sub_(1).mul_(change), start)


def _largest(matrix: torch.Tensor, vectors: torch.Tensor) -> float:
    """Return the largest eigenvalue of ``matrix^T matrix``."""
    for _ in range(ROUNDS):
        vectors = torch.linalg.qr(matrix.mT @ (matrix @ vectors)).Q
    return float(torch.linalg.matrix_norm(matrix @ vectors, 2)) ** 2
