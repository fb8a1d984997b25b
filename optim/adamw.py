"""AdamW for the parameters that are not matrices: torch's function, on each rank's part of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from htsr.optim.distributed import local_gradient, local_part


def moment_dtype(p: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's moments: squares of usual gradients, and eps, are zero in float16."""
    return torch.float32 if p.dtype == torch.float16 else p.dtype


def new_adamw_state(p: Tensor) -> dict[str, Tensor]:
    """Return AdamW's state of a parameter before its first step."""
    return {
        "step": torch.tensor(0.0, device="cpu"),
        "exp_avg": torch.zeros_like(p, dtype=moment_dtype(p), memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(p, dtype=moment_dtype(p), memory_format=torch.preserve_format),
    }


def step_adamw(group: dict[str, Any], params: Sequence[Tensor], states: Mapping[Tensor, dict[str, Any]]) -> None:
    """Do one step of AdamW on parameters of a group, with zeros for gradients that this rank does not have."""
    if not params:
        return
    parts = [local_part(p) for p in params]
    weights = [part.to(moment_dtype(part)) for part in parts]
    gradients = [local_gradient(p) for p in params]
    beta1, beta2 = map(float, group["betas"])  # torch takes tensors in some of its implementations only
    adamw(
        weights,
        [torch.zeros_like(w) if g is None else g.to(w.dtype) for w, g in zip(weights, gradients, strict=True)],
        [local_part(states[p]["exp_avg"]) for p in params],
        [local_part(states[p]["exp_avg_sq"]) for p in params],
        [],
        [states[p]["step"] for p in params],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    for part, weight in zip(parts, weights, strict=True):
        if weight is not part:
            part.copy_(weight)
