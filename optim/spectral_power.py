"""U diag(s^p) V^T: a matrix with its singular values raised to a power.

Shapes: m rows, n columns, k = min(m, n), any number of leading batch dimensions.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from htsr.errors import InputError
from htsr.optim.decompositions import eigh_power, svd_power
from htsr.optim.newton_schulz import newton_schulz_power
from htsr.optim.quintics import DEFAULT_STEPS, TABLES
from htsr.optim.streaming import streaming_power

Method = Literal["auto", "svd", "eigh", "iterate", "stream"]
Scale = Literal["match_muon", "spectral", "raw"]

# The range in which positive (HTMuon) and negative (DynMuon, Freon) powers were published.
POWER_RANGE = (-0.25, 1.0)
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
# Up to this side "eigh" takes no longer than torch.optim.Muon's Newton-Schulz, which is many small calls there.
EXACT_UP_TO = 64
NEGATIVE_POWER_STEPS = 8


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
        G: Real floating-point matrices, shape ``(..., m, n)``. Not changed.
        power: p in [-0.25, 1]. At 0 the result is the polar factor, Muon's update; at 1 it is ``G``.
        method: How it is computed.

            - ``"svd"``: singular value decomposition in float32, or float64 for float64 input. The reference.
            - ``"eigh"``: eigenvalues of the float64 Gram matrix of the small side.
            - ``"iterate"``: ``steps`` quintic Newton-Schulz steps, as many matrix products as Muon's, for any p; the
              error holds for singular values from ``low`` to 1 times the Schatten-4 norm of ``G``, see Notes.
            - ``"stream"``: one step of subspace iteration from ``basis``, for matrices that change slowly.
            - ``"auto"``: ``"svd"`` for float64, ``"eigh"`` for matrices with k <= 64 on a CPU, ``"iterate"`` for all others.

        steps: Of ``"iterate"``, 5 to 9. By default 6, and 8 for ``"auto"`` at p < 0.
        scale: ``"raw"`` leaves the singular values at s^p, as the HTMuon paper does, so that the result scales with the
            p-th power of ``G``. ``"spectral"`` divides by the largest: spectral norm 1. ``"match_muon"`` rescales to
            Frobenius norm sqrt(rank), which the polar factor has, so that learning rates carry over from Muon. The
            last two do not depend on the scale of ``G``.
        dtype: Of the matrix products of ``"iterate"``. By default float16 on a GPU; on a CPU that of ``G``, float32 at
            least, except that ``"auto"`` takes bfloat16 for p >= 0.
        basis: Of ``"stream"``: zeros of shape ``(..., k, k)`` before the first call, overwritten by every call.

    Returns:
        A new tensor like ``G``. Where ``G`` is zero, so is the result.

    Raises:
        InputError: If a setting is unknown or out of range, ``"stream"`` has no basis of the right shape, or ``G`` is
            not a finite real matrix.

    Notes:
        ``"iterate"``: with 5, 6, 7, 8 and 9 steps no singular value s is wrong by more than 0.36, 0.42, 0.43, 0.49 and
        0.55 %, for any p in [0, 1], where s is at least 0.01, 0.003, 0.001, 0.0003 and 0.0001 times the Schatten-4 norm.
        For p < 0 the domain begins three times higher; with 8 steps the error is 0.9 % at p = -0.1 and 4 % at -0.25.
        float32 keeps these figures; bfloat16 adds 0.5 to 3 % of the norm, float16 a tenth
        of that. Smaller singular values come out too small, in proportion to s, where the paper's code raises rounding
        noise with them: (1e-7)^(1/8) = 0.13.

        ``"svd"``, ``"eigh"`` and ``"stream"`` count singular values below 16 eps times the largest as zero and leave them
        zero, also for p <= 0: the polar factor of a rank-deficient matrix is the partial isometry, not one completed with
        arbitrary directions. ``"iterate"`` counts the rank for ``"match_muon"`` as the singular values in its domain.

    Example:
        >>> G = torch.diag(torch.tensor([16.0, 1.0]))
        >>> spectral_power(G, 0.25).diagonal()
        tensor([2., 1.])
        >>> spectral_power(G, 0.25, scale="spectral").diagonal()
        tensor([1.0000, 0.5000])
    """
    check_power(power)
    check_method(method, steps, dtype)
    check_scale(scale)
    if G.ndim < 2 or not G.is_floating_point():
        raise InputError(f"expected real floating-point matrices (..., m, n), got {G.dtype} of shape {tuple(G.shape)}")
    k = min(G.shape[-2:])
    if method == "stream" and (basis is None or basis.shape != (*G.shape[:-2], k, k)):
        got = "none" if basis is None else f"one of shape {tuple(basis.shape)}"
        raise InputError(f"expected a basis of shape {(*G.shape[:-2], k, k)} for method='stream', got {got}")
    if not torch.isfinite(G).all():
        bad = G.numel() - int(torch.isfinite(G).sum())
        raise InputError(f"expected finite matrices, {bad} of {G.numel()} entries are not finite")
    if G.numel() == 0 or (power == 1 and scale == "raw"):
        return G.clone()

    G_bmn = G.reshape(-1, *G.shape[-2:])
    basis_bkk = None if basis is None else basis.reshape(-1, k, k)
    result, new_basis = raise_spectra(G_bmn, power, method, scale, steps, dtype, basis_bkk)
    if basis is not None and new_basis is not None:
        basis.copy_(new_basis.view(basis.shape))
    return result.to(G.dtype).reshape(G.shape)


def raise_spectra(
    G_bmn: Tensor,
    power: float,
    method: Method,
    scale: Scale,
    steps: int | None = None,
    dtype: torch.dtype | None = None,
    basis_bkk: Tensor | None = None,
    compiled: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``spectral_power`` without its checks, for a stack of matrices.

    Args:
        G_bmn: Finite matrices, one batch dimension.
        power: See ``spectral_power``, as all that follow.
        method: How.
        scale: Which scale.
        steps: Of ``"iterate"``.
        dtype: Of ``"iterate"``.
        basis_bkk: Of ``"stream"``.
        compiled: Run ``"iterate"`` through ``torch.compile``.

    Returns:
        The power in float32 or float64, and the new basis for ``"stream"``, else None.
    """
    tall = G_bmn.shape[-2] > G_bmn.shape[-1]
    method, steps, dtype = choose(G_bmn, power, method, steps, dtype)
    if method == "iterate":
        return newton_schulz_power(G_bmn, power, steps=steps, dtype=dtype, scale=scale, compiled=compiled), None
    X = G_bmn.to(torch.promote_types(G_bmn.dtype, torch.float32))
    X = X.mT if tall else X
    new_basis = None
    if method == "stream":
        assert basis_bkk is not None
        Y, new_basis = streaming_power(X, power, scale, basis_bkk.to(X.dtype))
    else:
        Y = (svd_power if method == "svd" else eigh_power)(X, power, scale)
    return (Y.mT.contiguous() if tall else Y), new_basis


def choose(
    G: Tensor, power: float, method: Method, steps: int | None = None, dtype: torch.dtype | None = None
) -> tuple[Method, int, torch.dtype]:
    """What ``"auto"`` and the defaults of ``steps`` and ``dtype`` stand for.

    ``"auto"`` is the fastest of what ``benchmarks/htmuon_kernel.py`` measured (AMD EPYC with bfloat16 arithmetic, one
    thread, 3072 x 768): relative to Muon's Newton-Schulz in the same run six steps took 1.4 times as long in bfloat16, 3.6
    times in float32, ``"eigh"`` 2.4 and ``"svd"`` 4.9 times. Up to 64 rows ``"eigh"`` is as fast as Muon. Large weights of
    opposite signs ask for float32 below p = 0. The choice on GPUs (float16) rests on the error alone, emulated on a CPU.

    Args:
        G: The matrices.
        power: p.
        method: As given.
        steps: As given.
        dtype: As given.

    Returns:
        Method, steps and dtype.
    """
    number = torch.promote_types(G.dtype, torch.float32)
    on_cpu = G.device.type == "cpu"
    exact_is_cheap = number == torch.float64 or (on_cpu and min(G.shape[-2:]) <= EXACT_UP_TO)
    if method == "auto" and steps is None and dtype is None and exact_is_cheap:
        return ("svd" if number == torch.float64 else "eigh"), DEFAULT_STEPS, number
    if steps is None:
        steps = NEGATIVE_POWER_STEPS if method == "auto" and power < 0 else DEFAULT_STEPS
    if dtype is None and number != torch.float64:
        fast = torch.bfloat16 if method == "auto" and power >= 0 else torch.float32
        dtype = fast if on_cpu else torch.float16
    return ("iterate" if method == "auto" else method), steps, dtype or number


def check_power(power: float) -> None:
    """Refuse a power outside its range.

    Args:
        power: The exponent p.

    Raises:
        InputError: If it is not in [-0.25, 1].
    """
    low, high = POWER_RANGE
    if not (isinstance(power, int | float) and low <= power <= high):  # NaN is in no range
        raise InputError(f"expected power in [{low}, {high:g}] (0 is Muon, 1 is the momentum itself), got {power}")


def check_scale(scale: str) -> None:
    """Refuse an unknown scale.

    Args:
        scale: The name given.

    Raises:
        InputError: If it is none of ``match_muon``, ``spectral`` and ``raw``.
    """
    if scale not in get_args(Scale):
        raise InputError(f"expected scale to be one of {', '.join(get_args(Scale))}, got {scale!r}")


def check_method(method: str, steps: int | None = None, dtype: torch.dtype | None = None) -> None:
    """Refuse an unknown method and settings that it does not have.

    Args:
        method: The name given.
        steps: Of ``"iterate"``, or None.
        dtype: Of ``"iterate"``, or None.

    Raises:
        InputError: If one is unknown.
    """
    if method not in get_args(Method):
        raise InputError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
    if steps is not None and steps not in TABLES:
        raise InputError(f"expected steps from {min(TABLES)} to {max(TABLES)}, got {steps!r}")
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"expected dtype to be one of {', '.join(str(d) for d in DTYPES)}, got {dtype!r}")
