"""Momenta moved by gradients, and weights by updates: one call for all matrices of a rule.

On a GPU a call for each matrix takes longer than what it computes.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from htsr.optim.distributed import local_gradient, local_part
from htsr.optim.rule import UpdateRule


def next_momenta(rules: Sequence[UpdateRule], params: Sequence[Tensor], buffers: Sequence[Tensor]) -> list[Tensor]:
    """Move buffers by this step's gradients, zero where this rank has none; return the momenta to update with."""
    gradients = [
        torch.zeros_like(buffer) if gradient is None else gradient.to(buffer.dtype)
        for gradient, buffer in zip(map(local_gradient, params), buffers, strict=True)
    ]
    momenta = list(buffers)
    for rule, members in _by_rule(rules).items():
        own, moving = [gradients[i] for i in members], [buffers[i] for i in members]
        torch._foreach_lerp_(moving, own, 1 - rule.momentum)
        if rule.nesterov:
            for i, ahead in zip(members, torch._foreach_lerp(own, moving, rule.momentum), strict=True):
                momenta[i] = ahead
    return [momentum.contiguous() for momentum in momenta]


def apply_updates(rules: Sequence[UpdateRule], params: Sequence[Tensor], updates: Sequence[Tensor]) -> None:
    """Decay the weights of this rank, then subtract the updates."""
    for rule, members in _by_rule(rules).items():
        _apply([local_part(params[i]) for i in members], [updates[i] for i in members], rule)


def _apply(weights: list[Tensor], updates: list[Tensor], rule: UpdateRule) -> None:
    """Decay the weights, then subtract the updates."""
    lr, weight_decay = rule.lr, rule.weight_decay
    # In place, torch's calls for lists round the factor and the updates to the dtype of the weights first.
    same_dtype = all(p.dtype == update.dtype for p, update in zip(weights, updates, strict=True))
    if same_dtype and not rule.cautious and not isinstance(lr, Tensor):
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
        torch._foreach_sub_(weights, updates, alpha=lr)
        return
    for p, update in zip(weights, updates, strict=True):
        if rule.cautious:
            p.mul_(1 - lr * weight_decay * (update * p >= 0).to(p.dtype))
        else:
            p.mul_(1 - lr * weight_decay)
        if isinstance(lr, Tensor):
            p.sub_(lr * update)
        else:
            p.sub_(update, alpha=lr)


def _by_rule(rules: Sequence[UpdateRule]) -> dict[UpdateRule, list[int]]:
    """Return the places of each rule."""
    places: dict[UpdateRule, list[int]] = defaultdict(list)
    for i, rule in enumerate(rules):
        places[rule].append(i)
    return places
