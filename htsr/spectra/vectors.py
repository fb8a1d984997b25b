"""How localised the leading singular vectors are: spread over all coordinates, or concentrated on a few."""

from dataclasses import dataclass

import numpy as np
import torch

from htsr.errors import InputError
from htsr.spectra.spectrum import weight_as_tensor


@dataclass(frozen=True)
class Localization:
    """Localisation of the leading singular vectors of one side: one value for each vector, largest singular value first.

    Attributes:
        participation_ratio: ``1 / (m sum v^4)``, the share of the m coordinates that carry the vector: 1 if all coordinates
            are equal in size, 1/3 for a random vector, 1/m if a single coordinate carries it.
        entropy: Shannon entropy of ``v^2`` divided by its maximum, ln m: 1 if all coordinates are equal in size, 0 if a single
            one carries the vector.
    """

    participation_ratio: np.ndarray
    entropy: np.ndarray


def localization(weight: "torch.Tensor | np.ndarray", k: int = 10) -> tuple[Localization, Localization]:
    """Measure how localised the leading singular vectors are.

    Args:
        weight: Shape ``(out, in)``, or ``(out, in, *kernel)`` for a convolution, of which the ``(out, in)`` slice with the
            largest singular value is taken.
        k: Number of vectors; the rank limits it.

    Returns:
        The localisation of the left vectors, which have ``out`` coordinates, and of the right ones, which have ``in``.

    Raises:
        TypeError: If the weight is not one tensor or array.
        ValueError: If ``k`` is below 1.
        InputError: If the weight is not a finite real matrix.

    Notes:
        Path: ``eigh`` of the smaller Gram matrix in float64; the vectors of the longer side are ``W v / |W v|``. WeightWatcher's
        ``part_ratio`` is a ratio of two norms, and its ``vec_entropy`` is not an entropy.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got k={k}")
    W = weight_as_tensor(weight).detach()
    if W.ndim < 2 or W.numel() == 0 or not W.is_floating_point():
        raise InputError(f"expected a real weight of shape (out, in, ...), got shape {tuple(W.shape)} of {W.dtype}")
    W = W.double()
    largest = W.abs().max()
    if not torch.isfinite(largest):
        raise InputError("expected a finite weight, got NaN or infinite entries")
    W = W / largest.clamp_min(torch.finfo(torch.float64).tiny)
    slices = W.flatten(2).permute(2, 0, 1) if W.ndim > 2 else W[None]
    norms = [torch.linalg.matrix_norm(piece, 2) for piece in slices] if len(slices) > 1 else [torch.tensor(0.0)]
    A = slices[int(torch.stack(norms).argmax())]
    tall = A if A.shape[0] >= A.shape[1] else A.mT
    evals, vectors = torch.linalg.eigh(tall.mT @ tall)
    rank = int((evals > torch.finfo(torch.float64).eps * len(tall) * evals[-1]).sum())
    short = vectors.flip(1)[:, : min(k, rank)]
    long = torch.nn.functional.normalize(tall @ short, dim=0)
    left, right = (long, short) if A.shape[0] >= A.shape[1] else (short, long)
    return _localization(left), _localization(right)


def _localization(vectors: torch.Tensor) -> Localization:
    """Return the localisation of orthonormal columns."""
    squares = vectors.square().cpu().numpy()
    m = len(squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(squares > 0, np.log(squares), 0.0)
        participation = 1 / (m * (squares**2).sum(axis=0))
    entropy = -(squares * logs).sum(axis=0) / np.log(m) if m > 1 else np.zeros(squares.shape[1])
    return Localization(participation, entropy)
