"""What a source holds, before any matrix is loaded."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layer:
    """One weight that can be analysed.

    Attributes:
        name: Unique within the source: the module path, wrapper prefixes such as ``_orig_mod`` stripped.
        longname: The module path exactly as the source spells it.
        layer_type: ``dense``, ``embedding``, ``conv1d`` or ``conv2d``.
        shape: Shape of the weight as stored, ``(out, in)`` or ``(out, in, *kernel)``.
        load: Returns the weight. Called at most once, so that one matrix at a time is in memory.
        tied_to: ``name`` of the earlier layer that shares this weight, or None.
    """

    name: str
    longname: str
    layer_type: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]
    tied_to: str | None = None


@dataclass(frozen=True)
class Skipped:
    """One tensor that is not analysed, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Inventory:
    """Every weight of a source, each in exactly one of two lists, in model order.

    Attributes:
        source: What was opened, in words for people.
        layers: Weights that can be analysed.
        skipped: All other tensors, each with a reason.
    """

    source: str
    layers: list[Layer]
    skipped: list[Skipped]
