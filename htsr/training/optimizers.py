"""What a Monitor must know about optimizers: which parameters they step, and which of their calls make up a training step."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.errors import InputError


def optimizers_of(given: Any) -> list[Optimizer]:
    """Return the torch optimizers that ``optimizer=`` names: one, several, or none; each may sit in a wrapper."""
    if given is None:
        return []
    several = isinstance(given, Iterable) and not hasattr(given, "step")
    found = [_unwrapped(one) for one in given] if several else [_unwrapped(given)]
    if not found:
        raise ValueError(f"expected an optimizer, several, or None and calls of step(), got {given!r}")
    if len({id(one) for one in found}) < len(found):
        raise ValueError(f"expected different optimizers, got the same one twice: {', '.join(labels_of(found))}")
    return found


def labels_of(optimizers: Sequence[Optimizer]) -> list[str]:
    """Return a distinct name for each optimizer: that of its class, from the second of its kind on with a number."""
    names: list[str] = []
    for optimizer in optimizers:
        name = type(optimizer).__name__
        same = sum(type(other).__name__ == name for other in optimizers[: len(names)])
        names.append(f"{name}-{same + 1}" if same else name)
    return names


def refuse_strangers(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Raise ``InputError`` for an optimizer that holds none of the model's parameters."""
    own = {id(p) for p in model.parameters()}
    for label, optimizer in zip(labels_of(optimizers), optimizers, strict=True):
        if own.isdisjoint(map(id, parameters_of(optimizer))):
            raise InputError(
                f"{label} holds none of the parameters of {type(model).__name__}, so its steps do not change this model: pass "
                "an optimizer that was made from this model's parameters, or None and call step() after each step"
            )


def unstepped(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[str]:
    """Return the names of the trainable parameters that no optimizer holds."""
    held = {id(p) for optimizer in optimizers for p in parameters_of(optimizer)}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters in all groups of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def has_closure(args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Return whether ``optimizer.step`` was called with a closure; ``args`` begin with the optimizer."""
    return kwargs.get("closure") is not None or (len(args) > 1 and args[1] is not None)


def skips_step(optimizer: Any) -> bool:
    """Return whether a fused optimizer skips this step by itself, because a loss scaler found infinite gradients."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.any())


class Turns:
    """Tells which calls of several optimizers make up one training step.

    The optimizers take turns in the order in which each stepped first. A training step begins with an optimizer that does not
    come later in that order than the one before it, so a call that is left out does not shift the following steps. Muon and
    AdamW, one after the other, make one step; a GAN whose discriminator steps five times for each step of the generator makes
    five.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: list[int] = []  # ids of the optimizers that have stepped, in the order of their first steps
        self._last: int | None = None  # the place in that order of the one that stepped last

    def begins_step(self, optimizer: Optimizer) -> bool:
        """Return whether a call of this optimizer begins a new training step."""
        return self._last is None or (id(optimizer) in self._order and self._order.index(id(optimizer)) <= self._last)

    def take(self, optimizer: Optimizer) -> None:
        """Note that this optimizer has stepped."""
        if id(optimizer) not in self._order:
            self._order.append(id(optimizer))
        self._last = self._order.index(id(optimizer))

    @property
    def is_complete(self) -> bool:
        """Return whether no further call can belong to the current training step."""
        return self._last == self._size - 1


def _unwrapped(optimizer: Any) -> Any:
    """Return the torch optimizer inside a wrapper such as accelerate's."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if not hasattr(inner, "register_step_post_hook"):
        raise TypeError(f"expected a torch optimizer, or None and calls of step(), got {type(optimizer).__name__}")
    return inner
