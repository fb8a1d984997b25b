"""Small networks and optimizers whose steps the tests audit."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from htsr.optim import HTMuon, parameter_groups


def perceptron(width: int = 16, out: int = 4) -> nn.Sequential:
    """A square matrix, one up, one down, and an output layer."""
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width), nn.ReLU(),
        nn.Linear(width, out),
    )  # fmt: skip


HIDDEN = ["0", "2", "4"]  # names of the hidden matrices


def batch(width: int = 16, out: int = 4, count: int = 32) -> Callable[[nn.Module], Tensor]:
    """A function that returns the loss of a model on a fixed random batch."""
    draw = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(count, width, generator=draw), torch.randint(0, out, (count,), generator=draw)
    return lambda model: nn.functional.cross_entropy(model(inputs.to(next(model.parameters()).dtype)).float(), targets)


def hidden_and_rest(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    named = dict(model.named_parameters())
    hidden = [named[f"{name}.weight"] for name in HIDDEN]
    return hidden, [p for p in named.values() if all(p is not q for q in hidden)]


def muon_and_adamw(model: nn.Module, muon: type = Muon, **settings) -> list[torch.optim.Optimizer]:
    hidden, rest = hidden_and_rest(model)
    return [muon(hidden, **{"lr": 0.02, **settings}), AdamW(rest, lr=1e-3)]


def htmuon(model: nn.Module, **settings) -> HTMuon:
    return HTMuon(parameter_groups(model), **settings)
