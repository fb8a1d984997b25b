"""What one step did to the matrices of a model: numbers for each matrix, as its optimizer reads it.

Shapes: b matrices, m rows (outputs), n columns (inputs).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.dynamics.norms import frobenius_norms, rms_factor, spectral_norms, wide
from htsr.dynamics.rules import Rule, default_reading, lr_of, rule_of
from htsr.dynamics.step_probe import alignment
from htsr.dynamics.step_promises import Promise, Update, promises
from htsr.optim.parameter_groups import parameter_roles
from htsr.training.optimizers import labels_of, parameters_of
from htsr.weights.names import clean_names

CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
# Roles of parameters that are hidden matrices beyond doubt, unless they read the input: Muon's users leave recurrent weights and
# the first layer to Adam.
SURELY_HIDDEN = ("weight of a Linear", "weight of a Conv1D", "query, key and value")


@dataclass(frozen=True)
class Held:
    """A parameter with matrices, and the group of the optimizer that holds it.

    Attributes:
        key: Its name in ``model.named_parameters()``.
        name: Its name in tables: the path of the layer, without prefixes that wrappers add, if it is the layer's ``weight``.
        parameter: The parameter.
        rule: The rule of the optimizer; without one, a rule that promises nothing.
        holders: How often optimizers hold it; 1 is right.
        stands_for: Whether the optimizers hold a tensor of its shape that is no parameter of the model, instead of it.
        is_hidden: Whether it is surely a hidden matrix.
        label: Name of the optimizer; empty if there is none.
        group: The optimizer's group.
        state: The optimizer's state of the parameter.
    """

    key: str
    name: str
    parameter: Tensor
    rule: Rule
    holders: int = 0
    stands_for: bool = False
    is_hidden: bool = False
    label: str = ""
    group: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a step did to one matrix.

    Attributes:
        name: Name of the matrix: that of the parameter, with a number in brackets if it holds several matrices.
        held: The parameter.
        n_out: Outputs of the matrix.
        n_in: Inputs of the matrix.
        lr: Learning rate of the group; NaN without an optimizer.
        norm: Spectral norm of the weights before the step; NaN where nobody asked for it.
        frobenius: Frobenius norm of the weights before the step.
        update_norm: Spectral norm of the update, the change without that by decoupled weight decay.
        update_frobenius: Frobenius norm of the update.
        decay_frobenius: Frobenius norm of the change by decoupled weight decay; NaN if nobody knows it.
        gradient_norm: Frobenius norm of the gradient; None if there is none.
        promised: Promised ``step_per_lr``; NaN if there is no promise.
        ratio: What the step was, divided by what was promised.
        floored: Whether epsilon alone takes away most of the step.
        alignment: How far the inputs of the layer lie along the update; NaN without inputs.
        degree: By which power of the gradients' scale the step changes; NaN where nobody measured it.
        rank_difference: The largest relative difference between the updates of ranks; NaN in a single process.
        other_rule: A rule that the steps of this optimizer follow instead; empty if there is none.
    """

    name: str
    held: Held
    n_out: int
    n_in: int
    lr: float
    norm: float
    frobenius: float
    update_norm: float
    update_frobenius: float
    decay_frobenius: float
    gradient_norm: float | None
    promised: float
    ratio: float
    floored: bool
    alignment: float = math.nan
    degree: float = math.nan
    rank_difference: float = math.nan
    other_rule: str = ""

    @property
    def update_operator_norm(self) -> float:
        """The update's operator norm between root mean squares."""
        return self.update_norm * rms_factor(self.n_out, self.n_in)

    @property
    def step_per_lr(self) -> float:
        """The update's operator norm for a learning rate of one."""
        return self.update_operator_norm / self.lr if self.lr > 0 else math.nan


def held_parameters(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[Held]:
    """Return the parameters of a model that hold matrices, in model order, each with the optimizer that holds it first."""
    roles = parameter_roles(model)
    owners = {id(p): module for module in model.modules() for p in module.parameters(recurse=False)}
    own = {id(p) for p in model.parameters()}
    strangers = [p for optimizer in optimizers for p in parameters_of(optimizer) if id(p) not in own]
    holders: dict[int, list[tuple[str, Optimizer, dict[str, Any]]]] = {}
    for label, optimizer in zip(labels_of(optimizers), optimizers, strict=True):
        for group in optimizer.param_groups:
            for p in group["params"]:
                holders.setdefault(id(p), []).append((label, optimizer, group))
    found: list[Held] = []
    names = clean_names(list(roles))
    for key, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter) or parameter.ndim < 2 or not parameter.is_floating_point():
            continue
        reading = default_reading(roles[key].reading, parameter, isinstance(owners[id(parameter)], CONVOLUTIONS))
        held = Held(
            key,
            names[key].removesuffix(".weight"),
            parameter,
            Rule("", reading=reading),
            holders=len(holders.get(id(parameter), ())),
            stands_for=any(p.shape == parameter.shape for p in strangers),
            is_hidden=bool(found) and parameter.ndim == 2 and roles[key].reason.startswith(SURELY_HIDDEN),
        )
        if held.holders:
            label, optimizer, group = holders[id(parameter)][0]
            rule = rule_of(optimizer, group, parameter, reading)
            held = replace(held, label=label, rule=rule, group=group, state=optimizer.state.get(parameter, {}))
        found.append(held)
    return found


@torch.no_grad()
def measured(
    held: Held,
    before: Tensor,
    after: Tensor,
    gradient: Tensor | None,
    *,
    weight_norms: bool = True,
    inputs_tn: Tensor | None = None,
) -> list[Measured]:
    """Return what a step did to each matrix of a parameter, from its values before and after and the gradient."""
    pieces = held.rule.reading.pieces
    whole, decay = update_and_decay(held.rule, before, after)
    updates = [Update.of(stack) for stack in pieces(whole)]
    promised = _promises(held, gradient, updates)
    decays = [None] * len(updates) if decay is None else pieces(decay)
    gradients = [None] * len(updates) if gradient is None else pieces(gradient)
    found: list[Measured] = []
    for weights, update, promise, faded, slope in zip(
        pieces(wide(before)), updates, promised, decays, gradients, strict=True
    ):
        missing = torch.full_like(update.spectral_b, math.nan)
        columns = (
            spectral_norms(weights) if weight_norms else missing,
            frobenius_norms(weights),
            update.spectral_b,
            update.frobenius_b,
            missing if faded is None else frobenius_norms(faded),
            missing if slope is None else frobenius_norms(slope),
            *promise,
        )
        values = zip(*(column.tolist() for column in columns), strict=True)
        for matrix, (norm, size, spectral, frobenius, fade, steepness, step, ratio, floored) in zip(
            update.matrices_bmn, values, strict=True
        ):
            found.append(
                Measured(
                    name=held.name,
                    held=held,
                    n_out=matrix.shape[0],
                    n_in=matrix.shape[1],
                    lr=lr_of(held.group),
                    norm=norm,
                    frobenius=size,
                    update_norm=spectral,
                    update_frobenius=frobenius,
                    decay_frobenius=fade,
                    gradient_norm=None if slope is None else steepness,
                    promised=step,
                    ratio=ratio,
                    floored=floored,
                    alignment=alignment(matrix, spectral, inputs_tn),
                )
            )
    if len(found) == 1:
        return found
    return [replace(one, name=f"{held.name}[{i}]") for i, one in enumerate(found)]


def update_and_decay(rule: Rule, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the update and the change by decoupled weight decay, None if nobody knows it, both in float64.

    Optimizers leave a parameter without a gradient as it is, without decay. Cautious decay spares the weights whose sign differs
    from that of the update before the learning rate.
    """
    old, new = wide(before), wide(after)
    if rule.decay is None:
        return new - old, None
    decay = torch.zeros_like(old) if torch.equal(old, new) else -rule.decay * old
    if rule.cautious:
        update = old + decay - new  # if all weights decayed
        rounding = 4 * torch.finfo(before.dtype).eps * old.square()  # zero updates do not keep weights from decaying
        decay = torch.where(update * old >= -rounding, decay, 0.0)
    return new - old - decay, decay


def _promises(held: Held, gradient: Tensor | None, updates: list[Update]) -> Iterator[Promise]:
    """Yield the promise for each stack of matrices; none is made for a parameter without an optimizer."""
    return promises(held.rule, held.group, held.state, gradient, updates)
