"""Checks of a schedule's arguments, and what tells one schedule from another."""

from dataclasses import is_dataclass
from typing import Literal, get_args

import numpy as np
from torch import nn

from htsr.audit.arguments import check_whole_number
from htsr.steering.arms import check_arm
from htsr.steering.maps import check_mean
from htsr.steering.matrices import Per
from htsr.steering.target_alpha import TargetAlpha
from htsr.training.monitor import Monitor

Setting = Literal["lr", "weight_decay", "power"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)


def described(part: object) -> str:
    """Return a signal or a map as text that tells it from others; functions have none."""
    return "a function" if callable(part) and not is_dataclass(part) else repr(part)


def check_arguments(
    source: object,
    setting: object,
    map: object,
    mean: object,
    arm: object,
    every: object,
    dead_band: float,
    per: object,
) -> None:
    """Raise TypeError or ValueError for the first argument that is wrong in itself or beside another one."""
    if not isinstance(source, nn.Module | Monitor):
        raise TypeError(f"expected a model or a Monitor, got {type(source).__name__}")
    if setting not in SETTINGS:
        raise ValueError(f"expected setting to be one of {', '.join(SETTINGS)}, got {setting!r}")
    if not callable(map):
        raise TypeError(f"expected map to be a function of the signals, got {map!r}")
    check_mean(mean)
    check_arm(arm)
    if every is not None:
        check_whole_number("every", every, least=1)
    if not isinstance(dead_band, int | float):
        raise TypeError(f"expected dead_band to be a number, got {dead_band!r}")
    if not 0 <= dead_band < np.inf:
        raise ValueError(f"expected dead_band >= 0, got {dead_band}")
    if per not in get_args(Per):
        raise ValueError(f"expected per to be layer or block, got {per!r}")
    if isinstance(map, TargetAlpha):
        if setting != "power" or mean is not None:
            raise ValueError("expected setting='power' and mean=None with TargetAlpha, which moves the power itself")
        if map.per == "model" and arm in {"shuffled", "inverted"}:
            raise ValueError(f"expected arm measured or uniform with per='model', since {arm} would change nothing")
