"""Which parameters move in a step: found, agreed on by all ranks and checked before the first weight changes.

The activity of a parameter is positive if it moves, ``INERT`` if its gradient and its momentum are zero, and ``MISSING`` if
it has no gradient. It is infinite if the gradient is not finite.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from htsr.errors import InputError
from htsr.optim.distributed import is_dtensor, local_gradient, local_part, max_over_ranks
from htsr.optim.parameters import label_of

MOVING, INERT, MISSING = 1.0, 0.0, -1.0


def parameter_activity(
    groups: list[dict[str, Any]], states: Mapping[Tensor, dict[str, Any]], process_group: dist.ProcessGroup | None
) -> dict[Tensor, float]:
    """Return the activity of every parameter; raise if a gradient on any rank is sparse or not finite."""
    places = [(group, index) for group in groups for index in range(len(group["params"]))]
    params = [group["params"][index] for group, index in places]
    gradients = []
    for (group, index), p in zip(places, params, strict=True):
        if p.grad is not None and p.grad.is_sparse:
            raise RuntimeError(
                f"HTMuon does not support sparse gradients, got one for {label_of(group, index)}: use sparse=False"
            )
        gradients.append(local_gradient(p))
    activity = _largest_magnitudes(gradients)
    for i, (group, _) in enumerate(places):
        if activity[i] == INERT and _has_momentum(params[i], states.get(params[i]), group):
            activity[i] = MOVING
    everywhere = activity
    if process_group is not None or any(is_dtensor(p) for p in params):
        everywhere = _agreed(activity, params, process_group)
        shared = [is_dtensor(p) or (process_group is not None and p.ndim >= 2) for p in params]
        activity = [b if both else a for a, b, both in zip(activity, everywhere, shared, strict=True)]
    for (group, index), gradient, value in zip(places, gradients, everywhere, strict=True):
        if value == float("inf"):
            bad = 0 if gradient is None else int((~torch.isfinite(gradient)).sum())
            where = f"{bad} of {group['params'][index].numel()} entries" if bad else "on another rank"
            raise InputError(
                f"the gradient of {label_of(group, index)} is not finite ({where}) at step {group['step']}; nothing was "
                "changed: leave this step out, or find where the loss diverged"
            )
    return dict(zip(params, activity, strict=True))


def _largest_magnitudes(gradients: list[Tensor | None]) -> list[float]:
    """Return the largest magnitude of each gradient, infinity if it is not finite, ``MISSING`` if there is none."""
    largest = [MISSING if gradient is None else INERT for gradient in gradients]
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = defaultdict(list)
    for i, gradient in enumerate(gradients):
        if gradient is not None and gradient.numel():
            by_device[gradient.device].append((i, gradient))
    for device, members in by_device.items():  # one transfer from each device
        reals = [torch.view_as_real(gradient) if gradient.is_complex() else gradient for _, gradient in members]
        if device.type == "cpu":
            values = torch.stack([torch.stack(torch.aminmax(gradient)).double() for gradient in reals]).abs().amax(-1)
        else:  # a few kernels for all; on a CPU this takes five times as long as the above
            values = torch.stack(torch._foreach_norm(reals, float("inf"))).double()
        values = values.nan_to_num(nan=float("inf"), posinf=float("inf"))
        for (i, _), value in zip(members, values.tolist(), strict=True):
            largest[i] = value
    return largest


def _has_momentum(p: Tensor, state: dict[str, Any] | None, group: dict[str, Any]) -> bool:
    """Return whether a parameter moves though its gradient is zero."""
    if not state:
        return False
    if group["algorithm"] == "adamw":
        return bool(state["step"] > 0)
    return group["momentum"] > 0 and bool(local_part(state["momentum_buffer"]).any())


def _agreed(activity: list[float], params: list[Tensor], process_group: dist.ProcessGroup | None) -> list[float]:
    """Return the largest activity of each parameter over the ranks."""
    device = next((local_part(p).device for p in params if is_dtensor(p)), local_part(params[0]).device)
    values = torch.tensor(activity, dtype=torch.float64, device=device)
    return max_over_ranks(values, params, process_group).tolist()
