"""The update of a stack of matrices: its spectral power, its size between two powers, its rows, its learning rate.

Shapes: b matrices, m rows, n columns, k = min(m, n).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from htsr.optim.rule import UpdateRule
from htsr.optim.settings import Method
from htsr.optim.spectral_power import power_of_stack

ROW_EPS = 1e-10  # HTMuon's code, normuon_generalized_ht_update_v2


class UpdateMemory(NamedTuple):
    """What updates keep of a stack between steps, beside the momentum; None where the rule does not ask for it.

    Attributes:
        resolved: Share of the singular directions that the last update moved, shape (b, 1, 1); the momentum does not
            resolve the others.
        row_second_moment: Moving average of the mean square of each row of the update, shape (b, m, 1).
        basis: Left or right singular vectors for ``method="stream"``, shape (b, k, k).
        norm_ratio: Frobenius norm of the last spectral update, divided by that of its momentum, raised to p if the
            scale is raw. Shape (b, 1, 1).
    """

    resolved: Tensor | None = None
    row_second_moment: Tensor | None = None
    basis: Tensor | None = None
    norm_ratio: Tensor | None = None


def matrix_update(momentum_bmn: Tensor, rule: UpdateRule, memory: UpdateMemory) -> tuple[Tensor, UpdateMemory]:
    """Return what a step subtracts from the weights before the learning rate, and the memory for the next step.

    The memory is zero before the first step. The update is float32 or float64. No argument is changed.
    """
    _, second_moment, basis, ratio = memory
    if rule.takes_power:
        Y, share, basis = power_of_stack(
            momentum_bmn, rule.power, rule.method, rule.scale, rule.steps, rule.dtype, basis, rule.compile
        )
    else:
        method: Method = "iterate" if rule.method == "iterate" else "auto"
        Y, share, _ = power_of_stack(
            momentum_bmn, 0.0, method, "match_muon", rule.steps, rule.dtype, None, rule.compile
        )
    if ratio is not None:
        degree = rule.power if rule.scale == "raw" else 0
        tiny = torch.finfo(Y.dtype).tiny
        size = _norm(momentum_bmn.to(Y.dtype)).clamp_min(tiny) ** degree
        if rule.takes_power:
            ratio = _norm(Y) / size
        else:
            Y = Y * torch.where(ratio > 0, ratio * size / _norm(Y).clamp_min(tiny), 1.0)
    if second_moment is not None:
        Y, second_moment = _normalize_rows(Y, second_moment, rule.row_beta)
    factor = rule.lr_factor(*momentum_bmn.shape[-2:])
    return Y.mul_(factor) if factor != 1 else Y, UpdateMemory(
        share[:, None, None].to(Y.dtype), second_moment, basis, ratio
    )


def _normalize_rows(Y: Tensor, second_moment: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Divide rows by their running root mean square, then restore each matrix's Frobenius norm, as HTNorMuon does."""
    norm = _norm(Y)
    second_moment = second_moment.lerp(Y.square().mean(-1, keepdim=True), 1 - beta)
    Y = Y / (second_moment + ROW_EPS).sqrt()
    return Y * (norm / _norm(Y).clamp_min(torch.finfo(Y.dtype).tiny)), second_moment


def _norm(Y: Tensor) -> Tensor:
    """Return Frobenius norms, shape (b, 1, 1), without leaving the range of the dtype when squaring."""
    top = Y.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(Y.dtype).tiny)
    return torch.linalg.matrix_norm(Y / top, keepdim=True) * top
