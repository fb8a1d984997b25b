"""Copies of a model and its optimizers that can be stepped while the originals stay as they are."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.errors import InputError
from htsr.training.optimizers import parameters_of


@contextmanager
def gradients_set_aside(model: nn.Module) -> Iterator[None]:
    """Take the gradients away from a model's parameters, and give them back at the end."""
    kept = [(p, p.grad) for p in model.parameters()]
    for p, _ in kept:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in kept:
            p.grad = gradient


def isolated(model: nn.Module, optimizers: Sequence[Optimizer]) -> tuple[nn.Module, list[Optimizer]]:
    """Return copies of a model and of its optimizers, which step the copied parameters.

    Hooks of optimizers, such as those of a Monitor, and what schedulers put around ``step`` stay with the originals.
    """
    if any(hasattr(p, "full_tensor") for p in model.parameters()):
        raise InputError("expected parameters that one process holds whole, got sharded ones (DTensor): use a Monitor")
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:  # torch refuses to copy these
                memo[id(value)] = value.detach().clone()
    for optimizer in optimizers:
        memo |= {id(value): value for value in vars(optimizer).values() if isinstance(value, _Shared)}
    try:
        twin = copy.deepcopy(model, memo)
        twins = [_copied(optimizer, memo) for optimizer in optimizers]
    except Exception as err:  # what a stranger's module or optimizer holds may refuse to be copied in any way
        raise InputError(
            f"expected a model and optimizers that copy.deepcopy can copy, and it raised {type(err).__name__}: {err}"
        ) from err
    for original, p in zip(model.parameters(), twin.parameters(), strict=True):
        vars(p).update(vars(original))  # marks that optimizers read, such as is_qkv
    return twin, twins


_Shared = dist.ProcessGroup if dist.is_available() else ()


def _copied(optimizer: Optimizer, memo: dict[int, Any]) -> Optimizer:
    """Return a copy of an optimizer without hooks; ``memo`` knows the copies of the parameters."""
    kept = {
        name: OrderedDict() if name.endswith("_hooks") else value
        for name, value in vars(optimizer).items()
        if name != "step"
    }
    twin = object.__new__(type(optimizer))
    vars(twin).update(copy.deepcopy(kept, memo))
    for p, q in zip(parameters_of(optimizer), parameters_of(twin), strict=True):
        assert p is not q
    return twin


def forget_history(optimizer: Optimizer) -> None:
    """Set everything to zero that an optimizer has averaged, so that its next step is like its first."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.zero_()
