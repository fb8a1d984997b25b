"""The rule of an update: everything that decides what one step subtracts from the matrices of a group."""

from collections import defaultdict
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from htsr.optim.learning_rates import FACTORS
from htsr.optim.matrices import Reading, reading_of
from htsr.optim.settings import AdjustLR, Method, Scale, check_settings

# Schedulers compute these, and rounding may leave a learning rate that falls to zero a little below it.
SET_BY_SCHEDULERS = frozenset({"lr", "weight_decay"})


@dataclass(frozen=True, eq=False)
class UpdateRule:
    """What decides the updates of a group's matrices in one step.

    Rules compare by identity: the matrices of a group share one rule, and those that share a rule can be stacked.
    """

    power: float
    method: Method
    scale: Scale
    steps: int | None
    dtype: torch.dtype | None
    compile: bool
    interval: int
    step: int
    row_normalize: bool
    row_beta: float
    adjust_lr: AdjustLR
    momentum: float
    nesterov: bool
    lr: float | Tensor
    weight_decay: float
    cautious: bool
    reading: Reading

    @classmethod
    def of(cls, group: dict[str, Any]) -> "UpdateRule":
        """Return the rule of a group in its next step; raise if a setting has been given a wrong value since."""
        settings = {name: group[name] for name in _FROM_GROUP}
        check_settings({name: settings[name] for name in settings.keys() - SET_BY_SCHEDULERS})
        settings["momentum"] = float(settings["momentum"])  # a tensor would need the dtype of every parameter
        return cls(**settings, reading=reading_of(group))

    @property
    def takes_power(self) -> bool:
        """Whether this step raises the spectrum to the power, and not Muon's step between two of those."""
        return self.step % self.interval == 0

    def memory_shapes(self, shape: torch.Size) -> dict[str, tuple[int, int]]:
        """Return the last two dimensions of each memory that the updates of a stack of shape (b, m, n) keep."""
        _, m, n = shape
        shapes = {"resolved": (1, 1)}
        if self.row_normalize:
            shapes["row_second_moment"] = (m, 1)
        if self.method == "stream":
            shapes["basis"] = (min(m, n), min(m, n))
        if self.interval > 1 and self.scale != "match_muon":
            shapes["norm_ratio"] = (1, 1)
        return shapes

    def memory_counts(self, shape: torch.Size) -> dict[str, int]:
        """Return how many numbers of each memory the updates of a parameter keep."""
        counts: dict[str, int] = defaultdict(int)
        for piece in self.reading.shapes(shape):
            for name, (rows, columns) in self.memory_shapes(piece).items():
                counts[name] += piece[0] * rows * columns
        return counts

    def lr_factor(self, rows: int, columns: int) -> float:
        """Return what the learning rate of a matrix is multiplied by.

        ``"original"`` is sqrt(max(1, rows / columns)) (K. Jordan 2024; torch.optim.Muon's default).
        ``"match_rms_adamw"`` is 0.2 sqrt(max(rows, columns)), which gives the update AdamW's usual root mean square
        (Moonlight, arXiv 2502.16982). ``"spectral"`` is sqrt(rows / columns), with which in theory one learning rate
        serves all widths (Yang et al. 2023, arXiv 2310.17813).
        """
        return FACTORS[self.adjust_lr](rows, columns)


_FROM_GROUP = tuple(field.name for field in fields(UpdateRule) if field.name != "reading")
