"""U diag(s^p) V^T: a matrix with its singular values raised to a power.

Shapes: m rows, n columns, k = min(m, n), any number of leading batch dimensions.
"""

import torch
from torch import Tensor

from htsr.errors import InputError
from htsr.optim.decompositions import eigh_power, svd_power
from htsr.optim.newton_schulz import newton_schulz_power
from htsr.optim.partial_fractions import cholesky_power
from htsr.optim.quintics import DEFAULT_STEPS
from htsr.optim.settings import Method, Scale, check_settings
from htsr.optim.streaming import streaming_power

EIGH_UP_TO = 128  # up to this side one batched decomposition takes less time than many small factorisations
NEGATIVE_POWER_STEPS = 8
# Share of the singular values below the domain of the iterates from which "auto" decomposes a matrix instead, on a CPU. On an
# H200 that took 13 times as long as a step of torch.optim.Muon, because every square matrix of noise has such values.
LOST = 1e-3


def spectral_power(
    G: Tensor,
    power: float,
    *,
    method: Method = "auto",
    steps: int | None = None,
    scale: Scale = "raw",
    dtype: torch.dtype | None = None,
    basis: Tensor | None = None,
) -> Tensor:
    """Raise the singular values of a matrix to a power.

    Args:
        G: Real floating-point matrices, shape ``(..., m, n)``.
        power: p in [-0.25, 1]. At 0 the result is the polar factor, Muon's update; at 1 it is ``G``.
        method: How it is computed.

            - ``"svd"``: singular value decomposition in float64. The reference.
            - ``"eigh"``: eigenvalues of the float64 Gram matrix of the small side; ``"svd"`` for float64 matrices.
            - ``"cholesky"``: partial fractions of the float32 Gram matrix, three to eight Cholesky factorisations of k x k
              matrices. No s^p is wrong by more than 0.6 %. ``"eigh"`` takes matrices that float32 cannot resolve:
              singular values below about 0.0003 of the largest, low rank.
            - ``"iterate"``: ``steps`` quintic Newton-Schulz steps, with as many matrix products a step as Muon's, for any
              p. Accurate for singular values that are large enough beside the Schatten-4 norm of ``G``; see Notes.
            - ``"stream"``: one step of subspace iteration from ``basis``, for matrices that change slowly.
            - ``"auto"``: on a CPU ``"eigh"`` for k <= 128 and ``"cholesky"`` for all others. On a GPU ``"iterate"``,
              whatever the matrix. ``"svd"`` for float64.

        steps: Number of steps of ``"iterate"``, 5 to 9. By default 6, and 8 for ``"auto"`` at p < 0.
        scale: ``"raw"`` leaves the singular values at s^p, as the HTMuon paper does, so that the result scales with the
            p-th power of ``G``. ``"spectral"`` divides them by the largest s^p. ``"match_muon"`` rescales to Frobenius
            norm sqrt(rank), which the polar factor has, so that tuning can begin at Muon's learning rates. The last two do not
            depend on the scale of ``G``.
        dtype: Type of the matrix products of ``"iterate"``. By default float16 on a GPU. On a CPU by default the dtype of
            ``G``, but at least float32.
        basis: What ``"stream"`` keeps between calls: pass zeros of shape ``(..., k, k)`` to the first call and the same
            tensor to the later ones. Every call overwrites it.

    Returns:
        A new tensor with the shape and dtype of ``G``; zero for a matrix of zeros.

    Raises:
        TypeError: If a setting has the wrong type, such as a string instead of a number.
        ValueError: If a setting is unknown or out of range, or ``"stream"`` has no basis of the right shape.
        InputError: If ``G`` is not a finite real matrix.

    Notes:
        With 5, 6, 7, 8 and 9 steps of ``"iterate"`` and any p in [0, 1], no s^p is wrong by more than 0.36, 0.42, 0.43,
        0.49 and 0.55 % if s is at least 0.01, 0.003, 0.001, 0.0003 and 0.0001 times the Schatten-4 norm. For p < 0 this
        domain begins three times higher, and with 8 steps the error is 0.9 % at p = -0.1 and 4 % at p = -0.25. float32
        keeps these figures; bfloat16 adds 0.5 to 3 % of the norm, and float16 a tenth of that. Smaller singular values
        come out too small, in proportion to s. The paper's code raises rounding noise with them: (1e-7)^(1/8) = 0.13.

        ``"svd"``, ``"eigh"`` and ``"cholesky"`` leave out what the entries of ``G`` do not resolve, singular values within the
        noise that rounding to its dtype leaves, also for p <= 0. A float32 matrix of rank 4 has an update of rank 4.
        ``"stream"`` leaves out what is below 16 eps times the largest. For ``"match_muon"``, ``"iterate"`` takes the number
        of singular values in its domain as the rank.

    Example:
        >>> G = torch.diag(torch.tensor([16.0, 1.0]))
        >>> spectral_power(G, 0.25).diagonal()
        tensor([2., 1.])
        >>> spectral_power(G, 0.25, scale="spectral").diagonal()
        tensor([1.0000, 0.5000])
    """
    check_settings({"power": power, "method": method, "steps": steps, "scale": scale, "dtype": dtype})
    if G.ndim < 2 or not G.is_floating_point():
        raise InputError(f"expected real floating-point matrices (..., m, n), got {G.dtype} of shape {tuple(G.shape)}")
    k = min(G.shape[-2:])
    if method == "stream" and (basis is None or basis.shape != (*G.shape[:-2], k, k)):
        got = "none" if basis is None else f"one of shape {tuple(basis.shape)}"
        raise ValueError(f"expected a basis of shape {(*G.shape[:-2], k, k)} for method='stream', got {got}")
    if not torch.isfinite(G).all():
        bad = G.numel() - int(torch.isfinite(G).sum())
        raise InputError(f"expected finite matrices, {bad} of {G.numel()} entries are not finite")
    if G.numel() == 0 or (power == 1 and scale == "raw"):
        return G.clone()

    G_bmn = G.reshape(-1, *G.shape[-2:])
    basis_bkk = None if basis is None else basis.reshape(-1, k, k)
    result, _, new_basis = power_of_stack(G_bmn, power, method, scale, steps, dtype, basis_bkk)
    if basis is not None and new_basis is not None:
        basis.copy_(new_basis.view(basis.shape))
    return result.to(G.dtype).reshape(G.shape)


def power_of_stack(
    G_bmn: Tensor,
    power: float,
    method: Method,
    scale: Scale,
    steps: int | None = None,
    dtype: torch.dtype | None = None,
    basis_bkk: Tensor | None = None,
    compiled: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ``spectral_power`` of a stack without checks, the share of resolved directions, and ``"stream"``'s new basis.

    The power is float32 or float64; the share has shape (b,).
    """
    number = torch.promote_types(G_bmn.dtype, torch.float32)
    way, steps, dtype = resolve_method(G_bmn, power, method, steps, dtype)
    basis = None
    if way == "stream":
        assert basis_bkk is not None
        Y, share, basis = streaming_power(G_bmn.to(number), power, scale, basis_bkk.to(number))
    elif way == "iterate":
        Y, share = newton_schulz_power(G_bmn, power, steps=steps, dtype=dtype, scale=scale, compiled=compiled)
        if method == "auto" and G_bmn.device.type == "cpu":
            Y, share = _exact_where_lost(G_bmn, power, scale, Y, share)
    elif way == "cholesky":
        Y, share = _cholesky_or_eigh(G_bmn, power, scale)
    else:
        Y, share = (svd_power if way == "svd" else eigh_power)(G_bmn, power, scale)
    return Y.to(number).to(G_bmn.device), share.to(number).to(G_bmn.device), basis


def _cholesky_or_eigh(G_bmn: Tensor, power: float, scale: Scale) -> tuple[Tensor, Tensor]:
    """Return powers by ``cholesky_power``, by ``eigh_power`` where float32 does not do, and the share of resolved directions."""
    powers, shares = [], []
    for G in G_bmn:
        Y, share = cholesky_power(G, power, scale), torch.ones(1, device=G.device)
        if Y is None:
            exact, share = eigh_power(G[None], power, scale)
            Y = exact[0]
        powers.append(Y.to(torch.promote_types(G.dtype, torch.float32)))
        shares.append(share)
    return torch.stack(powers), torch.cat(shares)


def _exact_where_lost(G_bmn: Tensor, power: float, scale: Scale, Y: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the powers of matrices whose small singular values the iterates do not follow by those of ``eigh_power``."""
    lost = (share < 1 - LOST).nonzero()[:, 0]
    if len(lost):
        exact, resolved = eigh_power(G_bmn[lost], power, scale)
        Y = Y.index_copy(0, lost, exact.to(Y.dtype).to(Y.device))
        share = share.index_copy(0, lost, resolved.to(share.dtype).to(share.device))
    return Y, share


def resolve_method(
    G: Tensor, power: float, method: Method, steps: int | None = None, dtype: torch.dtype | None = None
) -> tuple[Method, int, torch.dtype]:
    """Return the method, steps and dtype that ``"auto"`` and None stand for."""
    number = torch.promote_types(G.dtype, torch.float32)
    on_cpu = G.device.type == "cpu"
    if method == "auto" and steps is None and dtype is None and (on_cpu or number == torch.float64):
        small = min(G.shape[-2:]) <= EIGH_UP_TO
        return ("svd" if number == torch.float64 else "eigh" if small else "cholesky"), DEFAULT_STEPS, number
    if steps is None:
        steps = NEGATIVE_POWER_STEPS if method == "auto" and power < 0 else DEFAULT_STEPS
    if dtype is None:
        dtype = number if on_cpu or number == torch.float64 else torch.float16
    return ("iterate" if method == "auto" else method), steps, dtype
