"""Step hooks on optimizers that do not keep alive whoever watches."""

import logging
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

logger = logging.getLogger(__name__)


class StepHooks:
    """Calls two methods before and after each step of some optimizers, until ``remove`` or until their object is gone.

    A step within a step, as where a subclass calls ``super().step()``, is part of the outer one.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        before: Callable[..., None],
        after: Callable[..., None],
        run_dir: Path,
    ) -> None:
        self._handles: list[Any] = []
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_pre_hook(_weakly(before)))
            self._handles.append(optimizer.register_step_post_hook(_weakly(after)))
        self._forgotten = weakref.finalize(self, _let_go, self._handles, run_dir)
        self._forgotten.atexit = False

    def __bool__(self) -> bool:
        return bool(self._handles)

    def remove(self) -> None:
        """Take the hooks off the optimizers."""
        if self._forgotten.detach():
            for handle in self._handles:
                handle.remove()


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls a method as long as its object lives, and does not keep the object alive."""
    reference = weakref.WeakMethod(method)

    def call(optimizer: Optimizer, *args: Any) -> None:
        alive = reference()
        if alive is not None and not is_within_a_step(optimizer):
            alive(optimizer, *args)

    return call


def is_within_a_step(optimizer: Optimizer) -> bool:
    """Return whether the step whose hook runs was called by another step of the same optimizer.

    torch wraps ``step`` of each class, and runs the hooks in every wrapper. A count of open steps would be wrong after an error.
    """
    wrapper = sys._getframe(2)
    frame = wrapper.f_back
    while frame is not None:
        if frame.f_code is wrapper.f_code and frame.f_locals.get("self") is optimizer:
            return True
        frame = frame.f_back
    return False


def _let_go(handles: Sequence[Any], run_dir: Path) -> None:
    """Take off the hooks of a Monitor to which nothing refers any more."""
    for handle in handles:
        handle.remove()
    if handles:
        logger.warning(
            "the Monitor of %s was dropped without close() and watches no more: keep it in a variable", run_dir
        )
