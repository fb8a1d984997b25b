"""Whether a change has any direction that is stronger than in noise whose values have the same sizes."""

import torch

# The leading singular value is found by a few rounds of subspace iteration: within 2 % of the edge of noise, and closer beyond.
VECTORS, ROUNDS = 8, 12


def above_noise(change: torch.Tensor) -> float:
    """Return the largest eigenvalue of ``change^T change`` over that of the same change with random signs; about 1 for noise.

    Random signs keep the size of every value, and so the noise of rows and columns of unequal size, and destroy all structure.
    """
    dtype = torch.promote_types(change.dtype, torch.float32)
    random = torch.Generator().manual_seed(change.numel())
    signs = (
        torch.randint(0, 2, change.shape, generator=random, dtype=torch.int8).to(change.device, dtype).mul_(2).sub_(1)
    )
    start = torch.randn(change.shape[1], VECTORS, generator=random).to(change.device, dtype)
    change = change.to(dtype)
    scale = change.abs().max()  # so that no square underflows
    return _largest(change / scale, start) / _largest(signs.mul_(change / scale), start)


def _largest(matrix: torch.Tensor, vectors: torch.Tensor) -> float:
    """Return the largest eigenvalue of ``matrix^T matrix``."""
    for _ in range(ROUNDS):
        vectors = torch.linalg.qr(matrix.mT @ (matrix @ vectors)).Q
    return float(torch.linalg.matrix_norm(matrix @ vectors, 2)) ** 2
