"""The update of a stack of matrices: the spectral power, Muon between, rows normalised, the learning rate adjusted.

Shapes: b matrices, m rows, n columns, k = min(m, n).
"""

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from htsr.errors import InputError
from htsr.optim.spectral_power import Method, raise_spectra

AdjustLR = Literal["original", "match_rms_adamw", "spectral"]
ROW_EPS = 1e-10  # HTMuon's code, normuon_generalized_ht_update_v2


class Memory(NamedTuple):
    """What an update keeps of a stack of matrices between steps, beside the momentum; empty where not asked for.

    Attributes:
        row_second_moment: Moving average of the mean square of each row of the update, shape (b, m, 1).
        basis: Of ``method="stream"``, shape (b, k, k).
        norm_ratio: Frobenius norm of the last spectral update over that of its momentum, to p where the scale is raw.
            Shape (b, 1, 1).
    """

    row_second_moment: Tensor | None = None
    basis: Tensor | None = None
    norm_ratio: Tensor | None = None


def memory_shapes(group: dict[str, Any], shape: torch.Size) -> dict[str, tuple[int, int]]:
    """What a group's settings keep of a stack.

    Args:
        group: The settings.
        shape: (b, m, n) of the stack.

    Returns:
        The two last dimensions of each memory that is kept.
    """
    _, m, n = shape
    shapes = {}
    if group["row_normalize"]:
        shapes["row_second_moment"] = (m, 1)
    if group["method"] == "stream":
        shapes["basis"] = (min(m, n), min(m, n))
    if group["interval"] > 1 and group["scale"] != "match_muon":
        shapes["norm_ratio"] = (1, 1)
    return shapes


def matrix_update(D_bmn: Tensor, group: dict[str, Any], memory: Memory) -> tuple[Tensor, Memory]:
    """What is subtracted from the weights, but for the learning rate.

    Args:
        D_bmn: Momentum of matrices of one shape.
        group: Settings.
        memory: Of the last step; zeros before the first.

    Returns:
        The update, float32 or float64, and the new memory.
    """
    spectral_step = group["step"] % group["interval"] == 0
    basis, ratio, second_moment = memory.basis, memory.norm_ratio, memory.row_second_moment
    steps, dtype, compiled = group["steps"], group["dtype"], group["compile"]
    if spectral_step:
        Y, new_basis = raise_spectra(
            D_bmn, group["power"], group["method"], group["scale"], steps, dtype, basis, compiled
        )
        basis = new_basis if basis is not None else None
    else:
        method: Method = "iterate" if group["method"] == "iterate" else "auto"
        Y, _ = raise_spectra(D_bmn, 0.0, method, "match_muon", steps, dtype, None, compiled)
    if ratio is not None:
        degree = group["power"] if group["scale"] == "raw" else 0
        tiny = torch.finfo(Y.dtype).tiny
        size = _norm(D_bmn.to(Y.dtype)).clamp_min(tiny) ** degree
        if spectral_step:
            ratio = _norm(Y) / size
        else:
            Y = Y * torch.where(ratio > 0, ratio * size / _norm(Y).clamp_min(tiny), 1.0)
    if second_moment is not None:
        Y, second_moment = _normalize_rows(Y, second_moment, group["row_beta"])
    factor = lr_factor(group["adjust_lr"], *D_bmn.shape[-2:])
    return Y.mul_(factor) if factor != 1 else Y, Memory(second_moment, basis, ratio)


def lr_factor(adjust_lr: AdjustLR, rows: int, columns: int) -> float:
    """What the learning rate of a matrix is multiplied by.

    Args:
        adjust_lr: ``"original"``: sqrt(max(1, rows / columns)), K. Jordan 2024, torch.optim.Muon's default.
            ``"match_rms_adamw"``: 0.2 sqrt(max(rows, columns)), which gives the update AdamW's usual root mean square
            (Moonlight, arXiv 2502.16982). ``"spectral"``: sqrt(rows / columns), for which one learning rate serves all
            widths (Yang et al. 2023, arXiv 2310.17813).
        rows: Outputs.
        columns: Inputs.

    Returns:
        The factor.
    """
    if adjust_lr == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns)) if adjust_lr == "match_rms_adamw" else math.sqrt(rows / columns)


def check_adjust_lr(adjust_lr: str) -> None:
    """Refuse an unknown adjustment.

    Args:
        adjust_lr: The name given.

    Raises:
        InputError: If it is unknown.
    """
    if adjust_lr not in get_args(AdjustLR):
        raise InputError(f"expected adjust_lr to be one of {', '.join(get_args(AdjustLR))}, got {adjust_lr!r}")


def _normalize_rows(Y: Tensor, second_moment: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """HTNorMuon: rows over their running root mean square, then back to the Frobenius norm they had together."""
    norm = _norm(Y)
    second_moment = second_moment.lerp(Y.square().mean(-1, keepdim=True), 1 - beta)
    Y = Y / (second_moment + ROW_EPS).sqrt()
    return Y * (norm / _norm(Y).clamp_min(torch.finfo(Y.dtype).tiny)), second_moment


def _norm(Y: Tensor) -> Tensor:
    """Frobenius norms, shape (b, 1, 1), also where squares leave the range of the dtype."""
    top = Y.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(Y.dtype).tiny)
    return torch.linalg.matrix_norm(Y / top, keepdim=True) * top
