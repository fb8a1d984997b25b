"""The arguments of a Monitor: read and checked before anything is watched or written."""

from collections.abc import Collection
from numbers import Real
from os import PathLike

from torch import nn

from htsr.tails.resampling import MIN_RESAMPLES
from htsr.training.ranks import is_distributed
from htsr.training.schedules import CaptureSchedule, check_whole
from htsr.training.schedules import every as every_step
from htsr.training.settings import check_about
from htsr.training.store.capture import QUANTITIES
from htsr.weights.inventory import Inventory
from htsr.weights.select import Patterns, select


def check_arguments(
    model: object,
    every: object,
    run_dir: object,
    log: object,
    budget: object,
    background: bool,
    bootstrap: object,
    first_step: object,
    timeout: object,
    about: object = None,
) -> None:
    """Raise ``TypeError`` or ``ValueError`` for an argument that a Monitor cannot work with."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module to watch, got {type(model).__name__}")
    if run_dir is not None and not isinstance(run_dir, str | PathLike):
        raise TypeError(f"expected run_dir to be a path, got {run_dir!r}")
    if log is not None and not callable(log):
        raise TypeError(f"expected log to be a function of metrics and step, got {log!r}")
    check_whole("first_step", first_step, 0)
    if every is not None and not callable(every):
        check_whole("every", every, 1)
    if budget is not None:
        _check_number("budget", budget)
        if not 0 < budget <= 1:  # type: ignore[operator]
            raise ValueError(f"expected a share of wall time above 0 and up to 1, got {budget=}")
    if background and is_distributed():
        raise ValueError(
            "background=True: expected a single process; a distributed training deals its layers out instead"
        )
    check_whole("bootstrap", bootstrap, 0)
    if 0 < bootstrap < MIN_RESAMPLES:  # type: ignore[operator]
        raise ValueError(
            f"expected bootstrap to be 0, for no intervals, or a whole number >= {MIN_RESAMPLES}, got {bootstrap=}"
        )
    _check_number("timeout", timeout)
    if not timeout > 0:  # type: ignore[operator]
        raise ValueError(f"expected seconds above 0, got {timeout=}")
    check_about(about)


def quantities_of(capture: str | Collection[str], has_optimizer: bool) -> tuple[str, ...]:
    """Return the quantities that ``capture=`` names, in the order in which they are recorded."""
    names = (capture,) if isinstance(capture, str) else tuple(capture)
    if not names or not set(names) <= set(QUANTITIES):
        raise ValueError(f"expected some of {', '.join(QUANTITIES)}, got {capture=}")
    if not has_optimizer and {"momentum", "updates"} & set(names):
        raise ValueError(f"{capture=}: momentum and updates need the optimizer, got optimizer=None")
    return tuple(name for name in QUANTITIES if name in names)


def logged_layers(log_layers: bool | Patterns, inventory: Inventory) -> Collection[str] | None:
    """Return the names of the layers that ``log_layers=`` asks for; None if it asks for all."""
    if log_layers is None or isinstance(log_layers, bool):
        return None if log_layers else ()
    return frozenset(layer.name for layer in select(inventory, log_layers).layers)


def schedule_of(every: int | CaptureSchedule | None, budget: float | None) -> CaptureSchedule:
    """Return the schedule that ``every=`` asks for: by default every 100 steps, or every step if a budget limits them."""
    if callable(every):
        return every
    return every_step(every or (1 if budget is not None else 100))


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real):
        raise TypeError(f"expected {name} to be a number, got {value!r}")
