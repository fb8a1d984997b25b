"""Powers of the singular values by one step of subspace iteration from the last call's singular vectors.

Shapes: b matrices, m rows, n >= m columns. Source: Su Jianlin, kexue.fm/archives/11654; HTMuon's ``htmuon_stream``.
"""

import torch
from torch import Tensor


def streaming_power(X_bmn: Tensor, power: float, scale: str, basis_bmm: Tensor) -> tuple[Tensor, Tensor]:
    """Return U diag(s^p) V^T with the left singular vectors that one QR step makes of ``basis_bmm``, and the new basis.

    The basis is what the last call returned, or zeros at first. The result is right only if successive matrices have nearly
    the same singular vectors, because one step does not separate singular values that lie close together.

    Notes:
        This iterates on the small side, whichever it is. HTMuon's code iterates on the columns, and for a wide matrix gets
        vectors that are not orthogonal.
    """
    tiny = torch.finfo(X_bmn.dtype).tiny
    top = X_bmn.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)
    X = X_bmn / top
    started = basis_bmm.abs().amax((-2, -1), keepdim=True) > 0
    start = torch.where(started, basis_bmm, torch.eye(X.shape[-2], dtype=X.dtype, device=X.device))
    U, _ = torch.linalg.qr(X @ (X.mT @ start))
    right = U.mT @ X  # rows s_i v_i^T
    S = torch.linalg.vector_norm(right, dim=-1, keepdim=True)
    largest = S.amax(-2, keepdim=True)
    nonzero = largest * (16 * torch.finfo(X.dtype).eps) < S
    powers = torch.where(nonzero, (S * top if scale == "raw" else S / largest) ** power, 0)
    Y = U @ (right * (powers / S.clamp_min(tiny)))
    if scale == "match_muon":
        rank = nonzero.sum((-2, -1), keepdim=True, dtype=X.dtype)
        Y = Y * (rank.sqrt() / torch.linalg.matrix_norm(Y, keepdim=True).clamp_min(tiny))
    return Y, U
