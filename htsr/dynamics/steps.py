"""Make a few training steps on a copy, and say of each weight matrix what the optimizer really did to it."""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.audit.columns import STEP_COLUMNS
from htsr.audit.row import Row, finished
from htsr.dynamics.norms import rms_factor
from htsr.dynamics.random_state import kept_random_state
from htsr.dynamics.step_audit import StepAudit
from htsr.dynamics.step_copies import forget_history, gradients_set_aside, isolated
from htsr.dynamics.step_measures import Held, Measured, held_parameters, measured, update_and_decay
from htsr.dynamics.step_probe import Activation, Activations, Forward, Probe, rms
from htsr.dynamics.verdicts import verdicts
from htsr.errors import InputError
from htsr.training.optimizers import labels_of, optimizers_of
from htsr.training.ranks import is_distributed
from htsr.training.schedules import check_whole

logger = logging.getLogger(__name__)

Closure = Callable[[nn.Module], Any]
# How much larger the gradients are in the second first step. A power of two, so that no digit is lost on the way.
SCALE = 4.0
# Projections of an update that ranks compare.
PROJECTIONS = 3


def audit_steps(
    model: nn.Module,
    optimizer: Optimizer | Iterable[Optimizer],
    closure: Closure,
    *,
    steps: int = 5,
    seed: int | None = None,
    probe: Forward | None = None,
) -> StepAudit:
    """Make a few training steps on a copy, and compare what each did to each weight matrix with what the optimizer promises.

    Copies of the model and of its optimizers make the steps. Parameters, buffers, gradients, the optimizers' state and the
    random numbers of Python, numpy and torch are bit for bit what they were afterwards.

    Args:
        model: The model, in the mode in which it trains.
        optimizer: Its optimizer, or all of its optimizers as a sequence, possibly wrapped by accelerate or Lightning.
        closure: ``closure(model)`` returns the loss of a batch, computed with the model that it gets, a copy. It may also
            accumulate gradients over several batches itself and return a loss without a graph. It is called once a step.
        steps: Number of steps.
        seed: Seed of the random numbers within the audit. None goes on from where they are.
        probe: ``probe(model)`` runs the model on the batch on which activations are compared. By default it is the batch that
            the closure feeds to the model first.

    Returns:
        The audit: ``details`` has one row for each matrix and step.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``steps`` is not positive.
        InputError: If the model or an optimizer cannot be copied, is sharded over processes, or the closure leaves no gradients
            in the model that it gets.

    Notes:
        A matrix is what the optimizer takes for one: kernels are flattened to (out, in * positions), three-dimensional
        parameters are stacks of matrices, and HTMuon's ``layout`` and ``split`` count. Learning-rate schedulers make no step.
        Hooks of optimizers and of parameters do not run, and what the closure holds besides the model, such as an iterator of
        batches, goes on.

        The degree of homogeneity comes from two more first steps, with a state of zeros, the second one with gradients
        4 times as large.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> batch = torch.randn(16, 32)
        >>> audit = audit_steps(model, optimizer, lambda model: (model(batch) - batch).square().mean())
        >>> print(audit.verdict)
        All 2 matrices were stepped as their rules promise: 1.00 to 1.00 times.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    optimizers = optimizers_of(optimizer)
    if not optimizers:
        raise TypeError("expected a torch optimizer, got None")
    for name, function in (("closure", closure), ("probe", probe)):
        if not callable(function) and (name == "closure" or function is not None):
            raise TypeError(f"expected {name} to be a function of the model, got {type(function).__name__}")
    check_whole("steps", steps, 1)
    hooked = [p for p in model.parameters() if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None)]
    if hooked:
        logger.warning(
            "hooks on gradients do not run on copies, and the model has parameters with such hooks (%d): the audit shows steps "
            "without them",
            len(hooked),
        )
    with kept_random_state(seed), gradients_set_aside(model):
        rehearsal = _Rehearsal(model, optimizers, closure, probe)
        rows = [row for step in range(1, steps + 1) for row in rehearsal.step(step)]
    return StepAudit(rows, rehearsal.losses, type(model).__name__, labels_of(optimizers))


class _Rehearsal:
    """Steps of a training that copies make."""

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], closure: Closure, probe: Forward | None
    ) -> None:
        self._originals = model, optimizers
        self._closure = closure
        self._model, self._optimizers = isolated(model, optimizers)
        modules = {id(p): module for module in self._model.modules() for p in module.parameters(recurse=False)}
        self._layers = {
            held.key: modules[id(held.parameter)] for held in held_parameters(self._model, self._optimizers)
        }
        self._probe = Probe(self._model, list({id(layer): layer for layer in self._layers.values()}.values()), probe)
        self._activations: Activations = {}
        self._degrees: Mapping[str, float] = {}
        self.losses: list[float] = []

    def step(self, number: int) -> list[Row]:
        """Make one step, and return a row for each matrix."""
        self.losses.append(gradients_of(self._model, self._optimizers, self._closure))
        if number == 1:
            gradients = {name: p.grad for name, p in self._model.named_parameters()}
            self._degrees = _degrees(*self._originals, gradients)
            self._activations = self._probe.run()
        parameters = dict(self._model.named_parameters())
        before = {name: parameters[name].detach().clone() for name in self._layers}
        slopes = {name: _copied(parameters[name].grad) for name in self._layers}
        for optimizer in self._optimizers:
            if _wants_closure(optimizer):
                optimizer.step(lambda: gradients_of(self._model, self._optimizers, self._closure))
            else:
                optimizer.step()
        old, self._activations = self._activations, self._probe.run()
        held = held_parameters(self._model, self._optimizers)  # with the settings and the state as they are now
        differences = _rank_differences(held, before) if is_distributed() else {}
        measures: list[Measured] = []
        beside: list[Mapping[str, float]] = []
        for one in held:
            layer = id(self._layers[one.key])
            multiplies = getattr(self._layers[one.key], "weight", None) is one.parameter
            inputs = old[layer][0] if multiplies and layer in old else None
            found = measured(one, before[one.key], one.parameter, slopes[one.key], inputs_tn=inputs)
            degree, difference = self._degrees.get(one.key, math.nan), differences.get(one.key, math.nan)
            measures += [replace(matrix, degree=degree, rank_difference=difference) for matrix in found]
            beside += [_activation_cells(old.get(layer), self._activations.get(layer))] * len(found)
        return [
            _row(number, matrix, verdict, cells)
            for matrix, verdict, cells in zip(measures, verdicts(measures), beside, strict=True)
        ]


def gradients_of(model: nn.Module, optimizers: Sequence[Optimizer], closure: Closure) -> float:
    """Compute the gradients of a step anew, and return the loss."""
    for p in (*model.parameters(), *(p for one in optimizers for group in one.param_groups for p in group["params"])):
        p.grad = None
    loss = closure(model)
    if isinstance(loss, Tensor) and loss.requires_grad:
        if loss.numel() != 1:
            raise InputError(f"expected the closure to return one loss, got a tensor of shape {tuple(loss.shape)}")
        loss.backward()
    if all(p.grad is None for p in model.parameters()):
        raise InputError(
            "expected gradients in the model that the closure gets, found none: compute the loss with the closure's argument, a "
            "copy of your model, as in lambda model: loss_of(model(batch))"
        )
    return float(loss.detach() if isinstance(loss, Tensor) else loss)


def _wants_closure(optimizer: Optimizer) -> bool:
    """Return whether an optimizer, such as LBFGS, steps only with a function that computes the loss again."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().to_dense().clone()


def _degrees(
    model: nn.Module, optimizers: Sequence[Optimizer], gradients: Mapping[str, Tensor | None]
) -> dict[str, float]:
    """Return by which power of the gradients' scale a first step changes, by the parameter's name."""
    small, large = (_first_step(model, optimizers, gradients, scale) for scale in (1.0, SCALE))
    return {
        name: math.log(large[name] / size) / math.log(SCALE)
        for name, size in small.items()
        if size > 0 and large[name] > 0
    }


@torch.no_grad()
def _first_step(
    model: nn.Module, optimizers: Sequence[Optimizer], gradients: Mapping[str, Tensor | None], scale: float
) -> dict[str, float]:
    """Return the Frobenius norms of the updates in a first step, with a state of zeros, by the parameter's name."""
    if any(map(_wants_closure, optimizers)):
        return {}
    twin, twins = isolated(model, optimizers)
    for optimizer in twins:
        forget_history(optimizer)
    for name, p in twin.named_parameters():
        gradient = gradients[name]
        p.grad = None if gradient is None else gradient * scale
    held = held_parameters(twin, twins)
    before = {one.key: one.parameter.detach().clone() for one in held}
    for optimizer in twins:
        optimizer.step()
    return {one.key: float(update_and_decay(one.rule, before[one.key], one.parameter)[0].norm()) for one in held}


def _rank_differences(held: Sequence[Held], before: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how much the changes of each parameter differ between ranks, relative to their norm."""
    mine: list[list[float]] = []
    for one in held:
        change = (one.parameter.detach().double() - before[one.key].double()).flatten().cpu()
        draw = torch.Generator().manual_seed(0)
        signs = (torch.randint(0, 2, (len(change),), generator=draw).double() * 2 - 1 for _ in range(PROJECTIONS))
        mine.append([float(change.norm()), *(float(change @ sign) for sign in signs)])
    shared: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shared, mine)
    values = torch.tensor(shared, dtype=torch.float64)  # (ranks, parameters, numbers)
    spread = (values.amax(0) - values.amin(0)).amax(-1)
    return {
        one.key: float(gap / norm) if norm > 0 else 0.0
        for one, gap, norm in zip(held, spread, values[..., 0].amax(0), strict=True)
    }


def _activation_cells(before: Activation | None, after: Activation | None) -> dict[str, float]:
    """Return how large the outputs of a layer are on the probe batch, and how much a step changed them."""
    if before is None or after is None or before[1].shape != after[1].shape:
        return {}
    return {"activation_rms": rms(before[1]), "activation_change_rms": rms(after[1] - before[1])}


def _row(step: int, one: Measured, verdict: tuple[str, str], beside: Mapping[str, float]) -> Row:
    """Return the row of a matrix and a step."""
    rule = one.held.rule
    decayed = one.decay_frobenius + one.update_frobenius
    cells: dict[str, object] = {
        "name": one.name,
        "step": step,
        "n_out": one.n_out,
        "n_in": one.n_in,
        "optimizer": one.held.label,
        "lr": one.lr,
        "rule": rule.name,
        "promise": rule.promise if one.held.label else "",
        "promised_step_per_lr": one.promised,
        "step_per_lr": one.step_per_lr,
        "step_vs_promise": one.ratio,
        "verdict": verdict[0],
        "verdict_evidence": verdict[1],
        "rms_operator_norm": one.norm * rms_factor(one.n_out, one.n_in),
        "update_operator_norm": one.update_operator_norm,
        "relative_step": _ratio(one.update_frobenius, one.frobenius),
        "relative_step_spectral": _ratio(one.update_norm, one.norm),
        "update_stable_rank": _ratio(one.update_frobenius**2, one.update_norm**2),
        "weight_decay_share": _ratio(one.decay_frobenius, decayed),
        "alignment": one.alignment,
        "homogeneity": one.degree,
        "rank_difference": one.rank_difference,
        **beside,
    }
    return finished(cells, STEP_COLUMNS)


def _ratio(part: float, whole: float) -> float:
    """Return a ratio, NaN where the divisor is zero."""
    return part / whole if whole else math.nan
