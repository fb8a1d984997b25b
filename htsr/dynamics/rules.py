"""Optimizers' rules: how each reads a parameter as matrices, and what it says a step does to them.

``step_per_lr`` is the operator norm of an update between root mean squares, ||O||_2 sqrt(n_in / n_out), for a learning rate of
one. A rule that sets singular values promises a number; Adam's depends on its state; SGD and unknown optimizers promise nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from numbers import Real
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from htsr.optim import HTMuon, Reading
from htsr.optim.learning_rates import FACTORS, Factor
from htsr.optim.matrices import reading_of

# The largest value of the Newton-Schulz quintic of K. Jordan's Muon, at s = 0.5545, and what bfloat16 adds. Some direction of a
# real momentum is nearly always close to it: the norm of the update was 1.13 to 1.20 in all trials with more than a few
# directions. The least value that the five steps give a lone direction is 0.68.
NEWTON_SCHULZ = 1.2025
QUINTIC, NS_STEPS = (3.4445, -4.775, 2.0315), 5
# Bounds of step_vs_promise for a healthy step. 0.68 / 1.2025 is 0.57; bfloat16 products add up to 3 %.
POLAR_BOUNDS = (0.55, 1.03)
# A largest singular value is at least this share of the Frobenius norm, unless more than a hundred directions are equally large.
LEAST_SHARE = 0.1
# HTMuon's powers are off by up to 4 % at p = -0.25 by ``iterate``, and by what ``stream`` lags behind.
POWER_BOUNDS = (0.9, 1.1)
# Adam's step is compared with the one that its state asks for without epsilon.
ADAM_BOUNDS = (0.9, 1.1)
# Epsilon in K. Jordan's code, which has no setting for it.
JORDAN_EPS = 1e-7

# What the factors are, for people.
_FACTOR_TEXTS = {
    "original": "sqrt(max(1, n_out / n_in)): up to sqrt(n_in / n_out) more for wide matrices than for others",
    "spectral": "sqrt(n_out / n_in): the same step at every width",
    "match_rms_adamw": "0.2 sqrt(max(n_out, n_in)): a step that grows as the square root of the width",
    "unit_rms": "sqrt(max(n_out, n_in)): a step that grows as the square root of the width",
    "none": "1",
}

Kind = Literal["polar", "power", "adam", "none"]


@dataclass(frozen=True)
class Rule:
    """What an optimizer does to the matrices of one parameter.

    Attributes:
        name: The optimizer and its settings that matter.
        promise: What it promises for ``step_per_lr``, in words.
        kind: How the promise becomes a number: ``polar`` sets singular values to about one, ``power`` is HTMuon, ``adam`` asks
            its state, ``none`` promises nothing.
        reading: How the optimizer reads the parameter as matrices.
        factor: What it multiplies the learning rate of a matrix by.
        as_stored: Whether the optimizer takes rows and columns as they are stored where the layer stores (in, out).
        degree: By which power of the gradients' scale the first step changes; None if nobody knows.
        decay: The share of the weights that decoupled weight decay takes away in a step; None if nobody knows.
        cautious: Whether weights decay only where the update has their sign.
        bounds: Bounds of ``step_vs_promise`` for a healthy step.
        gain: For ``polar``, the largest singular value that Newton-Schulz steps give.
        eps: Norm of the momentum, or root mean square of gradients, at and below which the step vanishes.
    """

    name: str
    promise: str = "none that is known here"
    kind: Kind = "none"
    reading: Reading = field(default_factory=Reading)
    factor: Factor = FACTORS["none"]
    as_stored: bool = True
    degree: float | None = None
    decay: float | None = None
    cautious: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    gain: float = NEWTON_SCHULZ
    eps: float = 0.0

    @property
    def is_spectral(self) -> bool:
        """Whether the rule acts on singular values."""
        return self.kind in ("polar", "power")

    def factor_of(self, n_out: int, n_in: int) -> float:
        """Return what the learning rate of a matrix is multiplied by."""
        swapped = self.as_stored and self.reading.layout == "transposed"
        return self.factor(n_in, n_out) if swapped else self.factor(n_out, n_in)


def lr_of(group: Mapping[str, Any]) -> float:
    """Return the learning rate of a group; NaN for an optimizer that makes its own."""
    lr = group.get("lr")
    return float(lr) if isinstance(lr, Real | Tensor) else math.nan


def rule_of(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor, reading: Reading) -> Rule:
    """Return the rule by which an optimizer moves a parameter of a group.

    ``reading`` says how the layer reads the parameter; it stands unless the optimizer has a reading of its own.
    """
    label = type(optimizer).__name__
    decay = lr_of(group) * float(group.get("weight_decay") or 0.0)
    if isinstance(optimizer, HTMuon):
        return _htmuon(group, decay, reading)
    if _descends(optimizer, "torch.optim", "Muon"):
        return _torch_muon(group, decay, reading)
    if isinstance(optimizer, Adam | AdamW):
        decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
        return _adam(label, group, decay if decoupled else 0.0, group["eps"], reading)
    if isinstance(optimizer, SGD):
        return Rule(label, "none: the step is as large as the gradients", reading=reading, degree=1.0, decay=0.0)
    if _is_jordans(optimizer, group):
        return _jordan(label, group, parameter, decay, reading)
    if "mu" in group and "algorithm" in group:
        return _dion(label, group, decay, reading)
    if _descends(optimizer, "emerging_optimizers", "OrthogonalizedOptimizer") and hasattr(optimizer, "scale_mode"):
        return _nvidia(optimizer, group, reading)
    return Rule(label, reading=reading)


def _htmuon(group: Mapping[str, Any], decay: float, reading: Reading) -> Rule:
    if group["algorithm"] == "adamw":
        return _adam("HTMuon's AdamW", group, decay, group["eps"], reading)
    power, scale, adjust = float(group["power"]), group["scale"], group["adjust_lr"]
    what = {
        "match_muon": "an update of the Frobenius norm that the polar factor has, sqrt(rank), times the factor of shape",
        "spectral": "an update of spectral norm 1, times the factor of shape",
        "raw": "the norm of the momentum to the power p, times the factor of shape",
    }[scale]
    rows = ", rows normalised" if group["row_normalize"] else ""
    promises = scale == "match_muon" or not rows  # which keeps the Frobenius norm only
    return Rule(
        f"HTMuon ({scale}, p = {power:g}, {adjust}{rows})",
        f"{what}, {_FACTOR_TEXTS[adjust]}" if promises else "none for the spectral norm of normalised rows",
        "power" if promises else "none",
        reading_of(group),
        FACTORS[adjust],
        as_stored=False,
        degree=power if scale == "raw" else 0.0,
        decay=decay,
        cautious=bool(group["cautious"]),
        bounds=POWER_BOUNDS,
    )


def _torch_muon(group: Mapping[str, Any], decay: float, reading: Reading) -> Rule:
    adjust = group["adjust_lr_fn"] or "original"
    if adjust not in FACTORS:
        return Rule(f"torch.optim.Muon ({adjust})", reading=reading, degree=0.0, decay=decay)
    rule = _polar(f"torch.optim.Muon ({adjust})", adjust, decay, float(group["eps"]), reading)
    coefficients, steps = tuple(group["ns_coefficients"]), group["ns_steps"]
    if (coefficients, steps) == (QUINTIC, NS_STEPS):
        return rule
    least, most = newton_schulz_range(coefficients, steps)
    promise = rule.promise.replace("1.2025", f"{most:.4g}")
    return replace(rule, promise=promise, gain=most, bounds=(0.97 * least / most, POLAR_BOUNDS[1]))


@lru_cache
def newton_schulz_range(coefficients: tuple[float, float, float], steps: int) -> tuple[float, float]:
    """Return the least norm of an update that Newton-Schulz steps give, and the largest."""
    a, b, c = coefficients
    x = np.linspace(0, 1, 100_001)
    y = x
    for _ in range(steps):
        y = y * (a + b * y**2 + c * y**4)
    return float(np.abs(y[x >= LEAST_SHARE]).min()), float(np.abs(y).max())


def _polar(name: str, adjust: str, decay: float | None, eps: float, reading: Reading) -> Rule:
    """Return the rule of a Muon that multiplies the learning rate by one of ``FACTORS``."""
    return Rule(
        name,
        f"a spectral norm of up to 1.2025, the most that Newton-Schulz gives, times {_FACTOR_TEXTS[adjust]}",
        "polar",
        reading,
        FACTORS[adjust],
        degree=0.0,
        decay=decay,
        bounds=POLAR_BOUNDS,
        eps=eps,
    )


def _adam(name: str, group: Mapping[str, Any], decay: float, eps: float, reading: Reading) -> Rule:
    return Rule(
        name,
        "what its state asks for, without epsilon; entries of one size give sqrt(n_in) (1 + sqrt(n_in / n_out)) where their "
        "signs are random, and n_in where all agree",
        "adam",
        reading,
        degree=0.0,
        decay=decay,
        bounds=ADAM_BOUNDS,
        eps=float(eps),
    )


def _is_jordans(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    """Return whether an optimizer seems to be K. Jordan's: by its class's name, and by groups with no settings but its own."""
    settings = {"betas", "eps"} if group.get("use_muon") is False else {"momentum"}
    others = {"params", "param_names", "initial_lr", "use_muon"}
    needed = settings | {"lr", "weight_decay"}
    return "Muon" in type(optimizer).__name__ and needed <= group.keys() <= needed | others


def _jordan(label: str, group: Mapping[str, Any], parameter: Tensor, decay: float, reading: Reading) -> Rule:
    name = f"K. Jordan's {label}"
    if not group.get("use_muon", True):
        return _adam(f"{name}, Adam", group, decay, group["eps"], reading)
    rule = _polar(name, "original", decay, JORDAN_EPS, reading)
    if parameter.ndim == 4:  # the code flattens kernels, and takes the factor of the last two dimensions before
        height, width = parameter.shape[-2:]
        factor = FACTORS["original"](height, width)
        return replace(rule, factor=lambda r, c: factor)
    return replace(rule, reading=Reading("stack")) if parameter.ndim == 3 else rule


def _dion(label: str, group: Mapping[str, Any], decay: float, reading: Reading) -> Rule:
    name = f"dion's {label}"
    if group["algorithm"] == "adamw":
        return _adam(f"{name}, AdamW", group, decay, group.get("epsilon", 1e-8), reading)
    adjust = {"spectral_norm": "spectral", "rms_norm": "match_rms_adamw", None: "none"}.get(group.get("adjust_lr"))
    if group["algorithm"] != "muon" or adjust is None:
        return Rule(f"{name}, {group['algorithm']}", reading=reading, decay=decay)
    layout = Reading() if group.get("flatten") else Reading("stack")
    rule = _polar(f"{name} ({group.get('adjust_lr')})", adjust, decay, float(group.get("epsilon", 1e-8)), layout)
    return replace(rule, reading=reading) if reading.layout == "transposed" else rule


def _nvidia(optimizer: Any, group: Mapping[str, Any], reading: Reading) -> Rule:
    adjust = {"spectral": "unit_rms", "shape_scaling": "original", "unit_rms_norm": "spectral"}.get(
        optimizer.scale_mode
    )
    if adjust is None:
        return Rule(f"NVIDIA's {type(optimizer).__name__} ({optimizer.scale_mode})", reading=reading)
    method = group.get("weight_decay_method", getattr(optimizer, "weight_decay_method", "decoupled"))
    share = float(group.get("weight_decay") or 0.0) * (1.0 if method == "independent" else lr_of(group))
    extra = float(getattr(optimizer, "extra_scale_factor", 1.0))
    rule = _polar(
        f"NVIDIA's Muon ({optimizer.scale_mode})", adjust, 0.0 if method == "l2" else share, JORDAN_EPS, reading
    )
    factor = rule.factor
    return replace(rule, promise=f"{rule.promise}, times {extra:g}", factor=lambda r, c: extra * factor(r, c))


def _descends(optimizer: Optimizer, package: str, name: str) -> bool:
    """Return whether a class of this name, from this package, is among the ancestors of an optimizer's class."""
    return any(
        base.__name__ == name and (base.__module__ == package or base.__module__.startswith(f"{package}."))
        for base in type(optimizer).__mro__
    )


def default_reading(role: Reading, parameter: Tensor, is_convolution: bool) -> Reading:
    """Return how a layer reads its parameter: whole, with kernels flattened and experts one by one."""
    if parameter.ndim == 3 and not is_convolution:
        return Reading("stack")
    return role._replace(split=None)
