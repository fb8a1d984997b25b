"""Powers of the singular values by one step of subspace iteration from the last call's singular vectors.

Shapes: b matrices, m rows, n columns, k = min(m, n). Source: Su Jianlin, kexue.fm/archives/11654; HTMuon's ``htmuon_stream``.
"""

import torch
from torch import Tensor


def streaming_power(G_bmn: Tensor, power: float, scale: str, basis_bkk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U diag(s^p) V^T with the singular vectors of the small side that one QR step makes of ``basis_bkk``.

    Return the share of resolved directions and the new basis, too.

    The basis is what the last call returned, or zeros at first. The result is right only if successive matrices have nearly
    the same singular vectors, because one step does not separate singular values that lie close together.

    Notes:
        This iterates on the small side, whichever it is. HTMuon's code iterates on the columns, and for a wide matrix gets
        vectors that are not orthogonal.
    """
    tall = G_bmn.shape[-2] > G_bmn.shape[-1]
    G = G_bmn.mT if tall else G_bmn
    tiny = torch.finfo(G.dtype).tiny
    top = G.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)
    X = G / top
    started = basis_bkk.abs().amax((-2, -1), keepdim=True) > 0
    start = torch.where(started, basis_bkk, torch.eye(X.shape[-2], dtype=X.dtype, device=X.device))
    U, _ = torch.linalg.qr(X @ (X.mT @ start))
    right = U.mT @ X  # rows s_i v_i^T
    S = torch.linalg.vector_norm(right, dim=-1, keepdim=True)
    largest = S.amax(-2, keepdim=True)
    nonzero = largest * (16 * torch.finfo(X.dtype).eps) < S
    powers = torch.where(nonzero, (S * top if scale == "raw" else S / largest) ** power, 0)
    Y = U @ (right * (powers / S.clamp_min(tiny)))
    share = nonzero.to(X.dtype).mean((-2, -1), keepdim=True)
    if scale == "match_muon":
        Y = Y * ((share * X.shape[-2]).sqrt() / torch.linalg.matrix_norm(Y, keepdim=True).clamp_min(tiny))
    elif scale == "spectral":
        Y = Y / powers.amax((-2, -1), keepdim=True).clamp_min(tiny)
    return (Y.mT if tall else Y), share[:, 0, 0], U
