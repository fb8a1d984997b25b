"""What a rule promises for the step that was just made, as numbers, from the settings and the state of the optimizer.

Shapes: b matrices, m rows (outputs), n columns (inputs), k = min(m, n).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from htsr.dynamics.norms import frobenius_norms, rms_factor, singular_values, spectral_norms, wide
from htsr.dynamics.rules import Rule, lr_of

# Where optimizers keep the running mean of gradients and that of their squares.
MEANS, SQUARES = ("momentum_buffer", "exp_avg", "momentum"), ("max_exp_avg_sq", "exp_avg_sq", "variance")


class Promise(NamedTuple):
    """A promise for a stack of matrices; NaN where there is none.

    Attributes:
        step_per_lr: The promised value, shape (b,).
        ratio: What the step was, divided by the promise, in the norm that the rule speaks of, shape (b,).
        floored: Whether epsilon alone takes away most of the step, shape (b,).
    """

    step_per_lr: Tensor
    ratio: Tensor
    floored: Tensor


class Update(NamedTuple):
    """The update of a stack of matrices, with its norms: the change of the weights, without that by decoupled weight decay."""

    matrices_bmn: Tensor
    spectral_b: Tensor
    frobenius_b: Tensor

    @classmethod
    def of(cls, matrices_bmn: Tensor) -> "Update":
        """Return an update with its norms."""
        return cls(matrices_bmn, spectral_norms(matrices_bmn), frobenius_norms(matrices_bmn))


def promises(
    rule: Rule, group: Mapping[str, Any], state: Mapping[str, Any], gradient: Tensor | None, updates: list[Update]
) -> Iterator[Promise]:
    """Yield the promise for each stack of matrices that the optimizer reads in a parameter."""
    lr = lr_of(group)
    if lr > 0 and rule.kind == "polar":
        yield from _polar(rule, lr, _momentum(group, state, gradient), updates)
    elif lr > 0 and rule.kind == "power" and "resolved" in state:
        yield from _power(rule, group, lr, state, gradient, updates)
    elif lr > 0 and rule.kind == "adam" and (asked := _adam_asks(group, state)) is not None:
        yield from _adam(rule, lr, asked, updates)
    else:
        yield from (_none(update) for update in updates)


def _none(update: Update) -> Promise:
    nothing = torch.full_like(update.spectral_b, math.nan)
    return Promise(nothing, nothing, torch.zeros_like(nothing, dtype=torch.bool))


def _polar(rule: Rule, lr: float, momentum: Tensor | None, updates: list[Update]) -> Iterator[Promise]:
    """Yield the promise of a Muon: a spectral norm that depends on the shape only."""
    sources = [None] * len(updates) if momentum is None else rule.reading.pieces(momentum)
    for update, source in zip(updates, sources, strict=True):
        rows, columns = update.matrices_bmn.shape[-2:]
        norm = rule.gain * rule.factor_of(rows, columns)
        floored = torch.zeros_like(update.spectral_b, dtype=torch.bool)
        if source is not None:
            floored = frobenius_norms(source) < rule.eps
        promised = torch.full_like(update.spectral_b, norm * rms_factor(rows, columns))
        yield Promise(promised, update.spectral_b / (lr * norm), floored)


def _power(
    rule: Rule,
    group: Mapping[str, Any],
    lr: float,
    state: Mapping[str, Any],
    gradient: Tensor | None,
    updates: list[Update],
) -> Iterator[Promise]:
    """Yield the promise of HTMuon: a Frobenius norm for ``match_muon``, a spectral norm for the other scales."""
    power, scale = float(group["power"]), group["scale"]
    between = (group["step"] - 1) % group["interval"] != 0  # the step counter has moved on since
    momentum = _momentum(group, state, gradient)
    sources = [None] * len(updates) if momentum is None else rule.reading.pieces(momentum)
    start = 0
    for update, source in zip(updates, sources, strict=True):
        b, rows, columns = update.matrices_bmn.shape
        k, factor = min(rows, columns), rule.factor_of(rows, columns)
        ranks = (state["resolved"].flatten()[start : start + b].double() * k).to(update.spectral_b.device)
        start += b
        if scale == "match_muon":
            size, norm = update.frobenius_b, ranks.sqrt()
        elif scale == "spectral" and not between:
            size, norm = update.spectral_b, torch.ones_like(ranks)
        elif scale == "raw" and not between and source is not None:
            values = singular_values(source)
            last = (ranks.round().long() - 1).clamp(0, k - 1)
            first = values[:, 0] if power >= 0 else values.gather(1, last[:, None])[:, 0]
            size, norm = update.spectral_b, first**power
        else:
            yield _none(update)
            continue
        ratio = torch.where(norm > 0, size / (lr * factor * norm), math.nan)
        least = torch.full_like(ratio, factor * rms_factor(rows, columns))  # of a flat spectrum
        yield Promise(_in_proportion(update, lr, ratio, least), ratio, torch.zeros_like(ratio, dtype=torch.bool))


def _adam(rule: Rule, lr: float, asked: tuple[Tensor, Tensor], updates: list[Update]) -> Iterator[Promise]:
    """Yield the promise of Adam: the Frobenius norm of what its state asks for, without epsilon."""
    for update, whole, with_eps in zip(updates, *map(rule.reading.pieces, asked), strict=True):
        norm = frobenius_norms(whole).to(update.frobenius_b.device)
        ratio = torch.where(norm > 0, update.frobenius_b / (lr * norm), math.nan)
        floored = frobenius_norms(with_eps).to(norm.device) < rule.bounds[0] * norm
        rows, columns = whole.shape[-2:]
        least = norm / math.sqrt(min(rows, columns)) * rms_factor(rows, columns)  # of a flat spectrum
        yield Promise(_in_proportion(update, lr, ratio, least), ratio, floored)


def _adam_asks(group: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Return the step that Adam's state asks for at a learning rate of one, without epsilon and with it; None without state."""
    mean, square = (next((state[key] for key in keys if key in state), None) for keys in (MEANS, SQUARES))
    count = float(state.get("step", group.get("step", 0)))
    if mean is None or square is None or mean.shape != square.shape or not count:
        return None
    beta1, beta2 = group["betas"] if "betas" in group else (group["beta1"], group["beta2"])
    m = wide(mean) / (1 - float(beta1) ** count)
    root = (wide(square) / (1 - float(beta2) ** count)).sqrt()
    eps = float(group["eps"] if "eps" in group else group.get("epsilon", 0.0))
    return torch.where(root > 0, m / root, 0.0), torch.where(root > 0, m / (root + eps), 0.0)


def _momentum(group: Mapping[str, Any], state: Mapping[str, Any], gradient: Tensor | None) -> Tensor | None:
    """Return the momentum that the step orthogonalised: with ``nesterov``, one step ahead; None if it is not known."""
    buffer = next((state[key] for key in MEANS if isinstance(state.get(key), Tensor)), None)
    if buffer is None or not group.get("nesterov", True):
        return buffer
    if gradient is None:
        return None
    beta = float(group["momentum"] if "momentum" in group else group.get("mu", group.get("momentum_beta", 0.95)))
    return gradient.to(buffer.dtype).lerp(buffer, beta)


def _in_proportion(update: Update, lr: float, ratio: Tensor, least: Tensor) -> Tensor:
    """Return the promised ``step_per_lr`` of an update that is ``ratio`` times what was promised; ``least`` if it is zero."""
    made = update.spectral_b / lr * rms_factor(*update.matrices_bmn.shape[-2:])
    return torch.where(ratio > 0, made / ratio, least)
