"""Learning rates of Muon's implementations: what each multiplies them by, and what one is in the unit of another."""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING

from torch import nn

from htsr.optim.parameter_groups import parameter_roles
from htsr.optim.settings import unknown_names

if TYPE_CHECKING:
    import pandas as pd

# What a learning rate is multiplied by for a matrix of r rows (outputs) and c columns (inputs).
Factor = Callable[[int, int], float]
FACTORS: Mapping[str, Factor] = {
    "original": lambda r, c: math.sqrt(max(1, r / c)),
    "spectral": lambda r, c: math.sqrt(r / c),
    "match_rms_adamw": lambda r, c: 0.2 * math.sqrt(max(r, c)),
    "unit_rms": lambda r, c: math.sqrt(max(r, c)),
    "none": lambda r, c: 1.0,
}

# The unit of each implementation: the name of its factor. A polar factor has the root mean square 1 / sqrt(max(r, c)), so
# AdamW's updates, whose root mean square is about 0.2 (Moonlight, arXiv 2502.16982, section 2.2), are those of match_rms_adamw.
UNITS: Mapping[str, str] = {
    "torch": "original",  # torch.optim.Muon
    "torch:match_rms_adamw": "match_rms_adamw",
    "keller_jordan": "original",  # MuonWithAuxAdam
    "moonlight": "match_rms_adamw",
    "adamw": "match_rms_adamw",
    "dion": "spectral",  # microsoft/dion, adjust_lr="spectral_norm"
    "dion:rms_norm": "match_rms_adamw",
    "nvidia": "unit_rms",  # NVIDIA's Emerging-Optimizers, scale_mode="spectral"
    "nvidia:shape_scaling": "original",
    "nvidia:unit_rms_norm": "spectral",
    "scion": "spectral",  # and modula
    "htmuon": "original",  # with the scales "match_muon" and "spectral" at p = 0
    "htmuon:spectral": "spectral",
    "htmuon:match_rms_adamw": "match_rms_adamw",
}


def convert_lr(lr: float, shape: tuple[int, int], *, rule: str = "torch", to: str) -> float:
    """Return the learning rate with which another implementation makes the same step on a matrix.

    Args:
        lr: The learning rate.
        shape: (out, in) of the matrix; kernels count as flattened, (out, in * positions).
        rule: The implementation that ``lr`` belongs to, such as ``torch`` (torch.optim.Muon), ``keller_jordan``, ``moonlight``,
            ``dion``, ``nvidia``, ``scion``, ``htmuon`` or ``adamw``; some have a setting behind a colon, such as
            ``torch:match_rms_adamw``.
        to: The other implementation.

    Returns:
        The learning rate.

    Raises:
        TypeError: If ``lr`` is not a number.
        ValueError: If an implementation is unknown, or the shape is not two positive numbers.

    Notes:
        The same step means the same factor of the polar factor of the momentum. For ``adamw`` it is a step of the same root
        mean square, if AdamW's is 0.2 of the learning rate. What the implementations' Newton-Schulz steps add, up to 20 %, is
        left out, and so are nuances of momentum.

    Example:
        >>> round(convert_lr(0.02, (1024, 1024), to="moonlight"), 6)
        0.003125
    """
    if not isinstance(lr, Real):
        raise TypeError(f"expected lr to be a number, got {lr!r}")
    problem = unknown_names({rule, to}, UNITS)
    if problem is not None:
        raise ValueError(problem.replace("settings", "implementations", 1))
    if not 0 <= lr < math.inf:
        raise ValueError(f"expected lr to be a finite number >= 0, got {lr}")
    if not isinstance(shape, tuple | list) or len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"expected shape to be (out, in), got {shape!r}")
    return float(lr) * FACTORS[UNITS[rule]](*shape) / FACTORS[UNITS[to]](*shape)


def lr_table(model: nn.Module, lr: float, *, rule: str = "torch") -> "pd.DataFrame":
    """Return what a learning rate is in the unit of every other implementation, for the matrices of a model.

    Args:
        model: The model.
        lr: The learning rate.
        rule: The implementation that it belongs to; see ``convert_lr``.

    Returns:
        One row for each shape of a hidden matrix: ``n_out``, ``n_in``, ``matrices`` (how many have it), ``first`` (the name of
        the first), and a column for each implementation. Where a column differs between rows, no single learning rate of that
        implementation makes the same steps.

    Raises:
        TypeError: If ``lr`` is not a number, or the model is not a module.
        ValueError: If the implementation is unknown.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
        >>> lr_table(model, 0.02)[["n_out", "n_in", "torch", "moonlight", "dion"]]
           n_out  n_in  torch  moonlight  dion
        0    256    64   0.02    0.01250  0.02
        1     64   256   0.02    0.00625  0.04
    """
    import pandas as pd

    shapes: dict[tuple[int, int], list[str]] = {}
    parameters = dict(model.named_parameters()) if isinstance(model, nn.Module) else {}
    for name, role in parameter_roles(model).items():
        if role.algorithm == "htmuon":
            whole = role.reading._replace(split=None)  # nobody else splits parameters
            for count, rows, columns in whole.shapes(parameters[name].shape):
                shapes.setdefault((rows, columns), []).extend([name] * count)
    records = [
        {"n_out": shape[0], "n_in": shape[1], "matrices": len(names), "first": names[0]}
        | {unit: convert_lr(lr, shape, rule=rule, to=unit) for unit in UNITS}
        for shape, names in shapes.items()
    ]
    return pd.DataFrame(records, columns=["n_out", "n_in", "matrices", "first", *UNITS])
