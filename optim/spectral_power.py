"""U diag(s^p) V^T: a matrix with its singular values raised to a power.

Shapes: m rows, n columns, k = min(m, n), any number of leading batch dimensions.
"""

from typing import Literal, get_args

import torch

Method = Literal["auto", "svd"]
Scale = Literal["match_muon", "spectral", "raw"]

# The range in which positive (HTMuon) and negative (DynMuon, Freon) powers were published.
POWER_RANGE = (-0.25, 1.0)
# Singular values below this many eps of the largest are rounding: in float32 and float64 SVDs of exactly rank-deficient
# matrices with sides of 128 to 2048 they came out at 2 to 7 eps.
RANK_TOLERANCE = 16


def spectral_power(G: torch.Tensor, power: float, *, method: Method = "auto", scale: Scale = "raw") -> torch.Tensor:
    """Raise the singular values of a matrix to a power.

    Args:
        G: Real floating-point matrices, shape ``(..., m, n)``. Not changed.
        power: p in [-0.25, 1]. At 0 the result is the polar factor, Muon's update; at 1 it is ``G``.
        method: ``"svd"``: a singular value decomposition in float32, or float64 for float64 input. ``"auto"`` is the
            same in this version.
        scale: ``"raw"`` leaves the singular values at s^p, as the HTMuon paper does, so that the result scales with the
            p-th power of ``G``. ``"spectral"`` divides by the largest: spectral norm 1. ``"match_muon"`` rescales to
            Frobenius norm sqrt(rank), which the polar factor has, so that learning rates carry over from Muon. The
            last two do not depend on the scale of ``G``.

    Returns:
        A new tensor like ``G``. Where ``G`` is zero, so is the result.

    Raises:
        ValueError: If ``power`` is outside its range, ``method`` or ``scale`` is unknown, or ``G`` is not a finite real
            matrix.

    Notes:
        Singular values below 16 eps times the largest count as zero and stay zero, also for p <= 0: the polar factor of
        a rank-deficient matrix is the partial isometry, not one completed with arbitrary directions. The paper's code
        raises them too, which turns rounding into update: (1e-7)^(1/8) = 0.13.

    Example:
        >>> G = torch.diag(torch.tensor([16.0, 1.0]))
        >>> spectral_power(G, 0.25).diagonal()
        tensor([2., 1.])
        >>> spectral_power(G, 0.25, scale="spectral").diagonal()
        tensor([1.0000, 0.5000])
    """
    check_power(power)
    check_method(method)
    check_scale(scale)
    if G.ndim < 2 or not G.is_floating_point():
        raise ValueError(f"expected real floating-point matrices (..., m, n), got {G.dtype} of shape {tuple(G.shape)}")
    if G.numel() == 0 or (power == 1 and scale == "raw"):
        return G.clone()

    try:
        U, S, Vh = torch.linalg.svd(G.to(torch.promote_types(G.dtype, torch.float32)), full_matrices=False)
    except torch.linalg.LinAlgError as err:
        bad = G.numel() - int(torch.isfinite(G).sum())
        raise ValueError(f"no singular value decomposition: {bad} of {G.numel()} entries are not finite") from err
    top = S[..., :1]
    nonzero = S > RANK_TOLERANCE * torch.finfo(S.dtype).eps * top
    if scale == "raw":
        S_power = torch.where(nonzero, S**power, 0)
    else:
        S_power = torch.where(nonzero, (S / top) ** power, 0)
    if scale == "match_muon":
        rank = nonzero.sum(-1, keepdim=True, dtype=S.dtype)
        S_power *= rank.sqrt() / torch.linalg.vector_norm(S_power, dim=-1, keepdim=True).clamp_min(1e-30)
    return ((U * S_power[..., None, :]) @ Vh).to(G.dtype)


def check_power(power: float) -> None:
    """Refuse a power outside its range.

    Args:
        power: The exponent p.

    Raises:
        ValueError: If it is not in [-0.25, 1].
    """
    low, high = POWER_RANGE
    if not (isinstance(power, int | float) and low <= power <= high):  # NaN is in no range
        raise ValueError(f"expected power in [{low}, {high:g}] (0 is Muon, 1 is the momentum itself), got {power}")


def check_scale(scale: str) -> None:
    """Refuse an unknown scale.

    Args:
        scale: The name given.

    Raises:
        ValueError: If it is none of ``match_muon``, ``spectral`` and ``raw``.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"expected scale to be one of {', '.join(get_args(Scale))}, got {scale!r}")


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Args:
        method: The name given.

    Raises:
        ValueError: If it is neither ``auto`` nor ``svd``.
    """
    if method not in get_args(Method):
        raise ValueError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
