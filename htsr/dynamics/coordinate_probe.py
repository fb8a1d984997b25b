"""Activations of a model's layers on one fixed batch: the one of the first call of a closure."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from htsr.dynamics.random_state import RandomState
from htsr.errors import InputError

# What the model as a whole is called beside its layers.
WHOLE = "(model)"

# Every output of each layer in one pass, in the order of its calls: a layer that is called twice has two.
Activations = Mapping[str, list[Tensor]]
Closure = Callable[[nn.Module], Tensor]


class Probe:
    """The batch of the first call of a closure, and the activations on it before and after training steps.

    The batch is what the closure handed to the model, so that the closure may draw a new batch in each call.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._calls: list[tuple[Any, Any]] = []
        self._random: RandomState | None = None

    def first(self, closure: Closure) -> tuple[Tensor, Activations]:
        """Return the loss of the first call of a closure, and the activations in it; keep the batch."""

        def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._random is None:
                self._random = RandomState()
            self._calls.append(tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), (args, kwargs)))

        with self.model.register_forward_pre_hook(keep, with_kwargs=True), recorded(self.model) as activations:
            loss = closure(self.model)
        if not self._calls:
            raise InputError(
                "expected closure(model) to call the model that it gets, as in loss_fn(model(x), y): it did not, so there is no "
                "batch to look at the activations of"
            )
        return loss, activations

    def again(self) -> Activations:
        """Return the activations on the kept batch; buffers and random states stay as they are.

        The random state is that of the first call, so dropout leaves out the same units.
        """
        assert self._random is not None
        before = RandomState()
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self._random.restore()
        try:
            with torch.no_grad(), recorded(self.model) as activations:
                for args, kwargs in self._calls:
                    self.model(*args, **kwargs)
        finally:
            before.restore()
            for buffer, value in buffers:  # batch normalisation counts each pass
                buffer.copy_(value)
        return activations


@contextmanager
def recorded(model: nn.Module) -> Iterator[Activations]:
    """Collect the outputs of the model and of each module with parameters of its own."""
    found: dict[str, list[Tensor]] = defaultdict(list)

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            tensor = _main_tensor(output)
            if tensor is not None:  # a clone, because an activation function may work in place
                found[name].append(tensor.detach().clone())

        return record

    handles = [
        module.register_forward_hook(hook(name or WHOLE))
        for name, module in model.named_modules()
        if not name or any(True for _ in module.parameters(recurse=False))
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def rms(tensors: Sequence[Tensor]) -> float:
    """Return the root mean square over all entries of some tensors."""
    squares = sum(float(torch.linalg.vector_norm(tensor.float())) ** 2 for tensor in tensors)
    return (squares / max(1, sum(tensor.numel() for tensor in tensors))) ** 0.5


def rms_of_change(now: Sequence[Tensor], start: Sequence[Tensor]) -> float:
    """Return the root mean square of the change of a layer's outputs; NaN if their number or a shape changed."""
    if [tensor.shape for tensor in now] != [tensor.shape for tensor in start]:
        return float("nan")
    return rms([new.float() - old.float() for new, old in zip(now, start, strict=True)])


def _main_tensor(output: Any) -> Tensor | None:
    """Return the first floating-point tensor of two dimensions or more in what a module returned."""
    if isinstance(output, Tensor):
        return output if output.ndim > 1 and output.is_floating_point() else None
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((tensor for item in items if (tensor := _main_tensor(item)) is not None), None)
