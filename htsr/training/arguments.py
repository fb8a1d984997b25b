"""What a Monitor was asked for, read and checked before anything is watched."""

from collections.abc import Collection
from numbers import Integral

from torch import nn

from htsr.tails.resampling import MIN_RESAMPLES
from htsr.training.schedules import Schedule
from htsr.training.schedules import every as every_step
from htsr.training.store.capture import QUANTITIES


def check_arguments(
    model: object, every: object, budget: object, bootstrap: object, first_step: object, timeout: float
) -> None:
    """Refuse what a Monitor cannot work with.

    Args:
        model: Should be a module.
        every: Should be None, a number of steps or a function.
        budget: Should be None or a share.
        bootstrap: Should be 0 or a number of resamples.
        first_step: Should be a number of steps.
        timeout: Should be seconds.

    Raises:
        TypeError: If the model is no module.
        ValueError: If a number is out of range.
    """
    if not isinstance(first_step, int) or first_step < 0:
        raise ValueError(f"expected a whole number of steps from 0 on, got {first_step=}")
    if every is not None and not callable(every) and not (isinstance(every, Integral) and int(every) >= 1):
        raise ValueError(f"expected a whole number of steps from 1 on, or a function step -> bool, got {every=}")
    if budget is not None and not (isinstance(budget, float | int) and 0 < budget <= 1):
        raise ValueError(f"expected a share of wall time between 0 and 1, got {budget=}")
    if bootstrap and not (isinstance(bootstrap, int) and bootstrap >= MIN_RESAMPLES):
        raise ValueError(f"expected bootstrap to be 0 or a whole number from {MIN_RESAMPLES} on, got {bootstrap!r}")
    if not timeout > 0:
        raise ValueError(f"expected seconds above 0, got {timeout=}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module to watch, got {type(model).__name__}")


def quantities_of(capture: str | Collection[str]) -> tuple[str, ...]:
    """The quantities that ``capture=`` names, in the order in which they are recorded.

    Args:
        capture: One or several of ``QUANTITIES``.

    Returns:
        The quantities.

    Raises:
        ValueError: If there is none, or one is unknown.
    """
    names = (capture,) if isinstance(capture, str) else tuple(capture)
    if not names or not set(names) <= set(QUANTITIES):
        raise ValueError(f"expected some of {', '.join(QUANTITIES)}, got {capture=}")
    return tuple(name for name in QUANTITIES if name in names)


def schedule_of(every: int | Schedule | None, budget: float | None) -> Schedule:
    """The schedule that ``every=`` and ``budget=`` ask for: every 100 steps, or, with a budget, each that it allows.

    Args:
        every: Steps between captures, or a schedule.
        budget: A share of wall time.

    Returns:
        The schedule.
    """
    if callable(every):
        return every
    return every_step(every or (1 if budget is not None else 100))
