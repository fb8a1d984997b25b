"""What a Monitor must know about an optimizer to hear its steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def unwrapped(optimizer: Any) -> Any:
    """Return the torch optimizer inside a wrapper such as accelerate's; None stays None."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if inner is not None and not hasattr(inner, "register_step_post_hook"):
        raise TypeError(f"expected a torch optimizer, or None and calls of step(), got {type(optimizer).__name__}")
    return inner


def has_closure(args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Return whether ``optimizer.step`` was called with a closure; ``args`` begin with the optimizer."""
    return kwargs.get("closure") is not None or (len(args) > 1 and args[1] is not None)


def skips_step(optimizer: Any) -> bool:
    """Return whether a fused optimizer skips this step by itself, because a loss scaler found infinite gradients."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.any())
