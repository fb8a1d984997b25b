"""What a step did to the layers of a model, for a Monitor."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.audit.step_columns import VERDICTS
from htsr.dynamics.step_measures import Held, Measured, held_parameters, measured
from htsr.dynamics.verdicts import verdicts

# A layer's parameter and the cut that yields the layer's part of it.
Place = tuple[Tensor, Callable[[Tensor], Tensor]]
Cells = dict[str, object]


@torch.no_grad()
def step_cells(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    places: Mapping[str, Place],
    before: Mapping[int, Tensor],
    gradients: Mapping[int, Tensor],
    mine: Collection[str] | None = None,
) -> dict[str, Cells]:
    """Return ``step_per_lr``, ``step_vs_promise`` and ``verdict`` of layers, by name.

    ``before`` and ``gradients`` go by the parameter's id. ``mine`` names the layers that this process measures, None meaning
    all; all processes gather sharded parameters in the same order. A layer that is part of a matrix of its optimizer, such as
    the queries of an attention, gets the numbers of that matrix, and a layer that several of its matrices make up those of the
    worst.
    """
    layers: dict[int, list[str]] = {}
    for name, (parameter, _) in places.items():
        layers.setdefault(id(parameter), []).append(name)
    measures: list[Measured] = []
    numbers: dict[str, list[int]] = {}  # of the measures of a layer
    for held in held_parameters(model, optimizers):
        key = id(held.parameter)
        if key not in layers or (held.holders and key not in before):
            continue  # the optimizer that holds it made no step
        old, new = _full(before.get(key, held.parameter)), _full(held.parameter)
        own = [name for name in layers[key] if mine is None or name in mine]
        if own:
            if new is not held.parameter:
                held = replace(held, state={})  # sharded, as the gradient is
            found = measured(held, old, new, gradients.get(key), weight_norms=False)
            for name in own:
                parts = _parts(held, places[name][1]) if len(found) > 1 else [0]
                numbers[name] = [len(measures) + part for part in parts]
            measures += found
    said = [verdict for verdict, _ in verdicts(measures)]
    ranks = {verdict: rank for rank, verdict in enumerate(VERDICTS)}
    cells: dict[str, Cells] = {}
    for name, of_layer in numbers.items():
        worst = min(of_layer, key=lambda number: ranks[said[number]])
        one = measures[worst]
        cells[name] = {"step_per_lr": one.step_per_lr, "step_vs_promise": one.ratio, "verdict": said[worst]}
    return cells


def _full(tensor: Tensor) -> Tensor:
    """Return the whole tensor; gathering one that is sharded over processes (DTensor) takes all of them."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _parts(held: Held, cut: Callable[[Tensor], Tensor]) -> list[int]:
    """Return the numbers of the matrices, as the optimizer reads them, that a layer has a part of."""
    reading, shape = held.rule.reading, held.parameter.shape
    stacks, start = [], 0
    for b, m, n in reading.shapes(shape):
        stacks.append(torch.arange(start, start + b, dtype=torch.float64)[:, None, None].expand(b, m, n))
        start += b
    return [int(number) for number in cut(reading.join(stacks, shape)).unique()]
