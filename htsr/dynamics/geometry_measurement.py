"""Gradients of a model on several batches, and the losses that steps along them lead to.

A step from the gradient of one batch is judged on the batch that follows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from htsr.dynamics.coordinate_probe import Closure
from htsr.dynamics.geometry_activations import incoming_activations
from htsr.dynamics.geometry_steps import Decrease, Gradient
from htsr.dynamics.random_state import seed_everything
from htsr.errors import InputError
from htsr.optim.matrices import Reading
from htsr.optim.parameter_groups import ParameterRole

# Two calls on one batch may differ by this share of the loss, since GPUs add in any order.
SAME_LOSS = 1e-4

Row = dict[str, Any]


def matrix_readings(model: nn.Module, roles: Mapping[str, ParameterRole]) -> dict[str, Reading]:
    """Return how each parameter that holds weight matrices is read as these, by name."""
    found = {}
    for name, parameter in model.named_parameters():
        if roles[name].algorithm == "htmuon":
            found[name] = roles[name].reading
        elif parameter.ndim == 2 and parameter.is_floating_point() and roles[name].decay:
            found[name] = Reading()
    return found


def closures_of(closure: Closure | Sequence[Closure], batches: int) -> list[Closure]:
    """Return one closure for each batch, which returns the same loss whenever it is called."""
    if not callable(closure):
        return [partial(_seeded, one, 0) for one in closure]
    return [partial(_seeded, closure, seed) for seed in range(batches)]


def _seeded(closure: Closure, seed: int, model: nn.Module) -> Tensor:
    """Return the loss of a closure that draws its batch with a seed."""
    seed_everything(seed)
    return closure(model)


class Measurement:
    """What ``gradient_geometry`` measures on a copy of the model, which is as it was after each call."""

    def __init__(self, model: nn.Module, roles: Mapping[str, ParameterRole], closures: Sequence[Closure]) -> None:
        self._model, self._roles, self._closures = model, roles, closures
        self._readings = matrix_readings(model, roles)
        named = model.named_parameters()
        self._parameters = {name: p for name, p in named if name in self._readings and p.requires_grad}
        if not self._parameters:
            raise InputError(f"expected a model with weight matrices that can be trained, got {type(model).__name__}")
        self._losses: list[float] = []
        self._gradients: list[Mapping[str, Tensor]] = []
        self._activations = []
        for one in closures:
            with incoming_activations(model) as activations:
                loss = one(model)
            found = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
            used = {name: g for name, g in zip(self._parameters, found, strict=True) if g is not None}
            if not used:
                raise InputError("expected closure(model) to use the model that it gets: no parameter has a gradient")
            norms = [float(g.norm()) for g in used.values()]
            if not all(map(math.isfinite, norms)) or not any(norms):
                what = "all zero" if not any(norms) else "not finite"
                raise InputError(
                    f"expected gradients that say something, but they are {what} for a loss of {float(loss.detach()):.6g}"
                )
            self._gradients.append(used)
            self._activations.append(activations)
            first = float(loss.detach())
            self._losses.append(self._loss(one))
            if abs(self._losses[-1] - first) > SAME_LOSS * abs(first):
                raise InputError(
                    f"expected the same loss for the same seed and weights, got {first:.6g} and {self._losses[-1]:.6g}: "
                    "draw the batch from torch's global random numbers, or pass a list of closures, one for each fixed batch"
                )
        # of several batches, all must have a gradient for a parameter, as they need not for an expert
        self.names = [name for name in self._parameters if all(name in gradients for gradients in self._gradients)]

    def of_batch(
        self,
        batch: int,
        powers: Sequence[float],
        lr: float,
        newton_schulz: Sequence[tuple[float, float, float]],
        alone: bool,
    ) -> Iterator[tuple[list[Row], list[Row]]]:
        """Yield for each parameter rows with the ranks of its matrices, and rows with decreases, one a matrix and power.

        The last pair has no ranks, and the decreases of all matrices of HTMuon together, under an empty name.
        """
        following = (batch + 1) % len(self._closures)
        together: dict[tuple[float, str], dict[str, Tensor]] = {(p, kind): {} for p in powers for kind in KINDS}
        for name in self.names:
            parameter = self._parameters[name]
            gradients, next_gradients = (self._matrices(name, self._gradients[i][name]) for i in (batch, following))
            stable = self._activations[batch].stable_rank(parameter)
            ranks: list[Row] = []
            decreases: list[Row] = []
            for number, (gradient, next_gradient) in enumerate(zip(gradients, next_gradients, strict=True)):
                label = f"{name}[{number}]" if len(gradients) > 1 else name
                found = Gradient.of(gradient)
                row: Row = {"name": label, "parameter": name, "rows": gradient.shape[0], "columns": gradient.shape[1]}
                if found is not None:
                    row |= {"nuclear_rank": found.nuclear_rank, "left_behind": found.left_behind(newton_schulz)}
                ranks.append(row | {"activation_stable_rank": stable})
                for power in powers:
                    row = {"name": label, "batch": batch, "power": power}
                    if found is not None:
                        step, shorter = found.step(power)
                        moved = self._placed(name, number, step)
                        row["slope"] = float((next_gradient.cpu().double() * step).sum())
                        if alone:
                            decrease = self._decrease({name: lr * moved}, following)
                            model = Decrease.measured(row["slope"], lr, decrease)
                            row |= {
                                "frobenius": decrease,
                                "spectral": model.at(lr * shorter),
                                "curvature": model.curvature,
                            }
                        if self._roles[name].algorithm == "htmuon":
                            for kind, factor in (("frobenius", lr), ("spectral", lr * shorter)):
                                steps = together[power, kind]
                                steps[name] = steps[name] + factor * moved if name in steps else factor * moved
                    decreases.append(row)
            yield ranks, decreases
        yield (
            [],
            [
                {"name": "", "batch": batch, "power": power}
                | {kind: self._decrease(together[power, kind], following) for kind in KINDS if together[power, kind]}
                for power in powers
            ],
        )

    @torch.no_grad()
    def _decrease(self, steps: Mapping[str, Tensor], batch: int) -> float:
        """Return by how much the loss of a batch falls when parameters move by minus these steps."""
        before = {name: self._parameters[name].detach().clone() for name in steps}
        try:
            for name, step in steps.items():
                self._parameters[name].sub_(step.to(self._parameters[name]))
            return self._losses[batch] - self._loss(self._closures[batch])
        finally:
            for name, value in before.items():
                self._parameters[name].copy_(value)

    @torch.no_grad()
    def _loss(self, closure: Closure) -> float:
        """Return the loss of a closure."""
        return float(closure(self._model))

    def _placed(self, name: str, number: int, step: Tensor) -> Tensor:
        """Return a step of one matrix in the shape of its parameter, zero elsewhere, in the parameter's own type or float32."""
        parameter, reading = self._parameters[name], self._readings[name]
        wide = torch.promote_types(parameter.dtype, torch.float32)
        stacks = reading.pieces(torch.zeros(parameter.shape, dtype=wide))
        [matrix for stack in stacks for matrix in stack][number].copy_(step)
        return reading.join(stacks, parameter.shape)

    def _matrices(self, name: str, tensor: Tensor) -> list[Tensor]:
        """Return the matrices in something of the shape of a parameter."""
        return [matrix for stack in self._readings[name].pieces(tensor) for matrix in stack]


KINDS = ("frobenius", "spectral")
