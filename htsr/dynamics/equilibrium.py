"""Where weights stand between their growth by updates and their decay, and how long a change of the decay takes to show.

With decoupled weight decay a step is ``W' = (1 - lr w) W - lr O``, where w is the weight decay and O the update.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from htsr.audit.arguments import check_whole_number
from htsr.audit.layout import as_text
from htsr.dynamics.coordinate_probe import Closure
from htsr.dynamics.geometry_measurement import matrix_readings
from htsr.dynamics.random_state import kept_random_state
from htsr.dynamics.step_copies import isolated
from htsr.dynamics.steps import gradients_of
from htsr.errors import InputError
from htsr.optim.parameter_groups import parameter_roles
from htsr.spectra.leading import leading_directions
from htsr.text import visible
from htsr.training.optimizers import optimizers_of
from htsr.training.store.history import History

# A norm that changes by less than this share within a time constant counts as being at equilibrium.
STEADY = 0.1
# Optimizers of torch with decoupled weight decay; those of the Adam family have a setting that says so.
DECOUPLED = ("Muon", "Adafactor")


def equilibrium(
    source: nn.Module | History, optimizer: Any, closure: Closure | None = None, *, steps: int = 5
) -> "Equilibrium":
    """Say for each matrix how far its growth has come, how fast it rotates, and when a change of weight decay will show.

    Args:
        source: The model, of which a copy takes a few steps. Or the ``History`` of a Monitor that watched the training with its
            optimizer: then the last two captures count.
        optimizer: The optimizer, or several. For a history, made from named parameters, as ``parameter_groups(model)`` or
            ``model.named_parameters()`` gives them.
        closure: Returns the loss of a batch, ``closure(model)``. Only a model needs it.
        steps: How many steps the copy takes.

    Returns:
        A row for each matrix that the optimizer updates.

    Raises:
        InputError: If the history has fewer than two captures, no distances, or no layer of the optimizer.
        TypeError: If the source is neither a model nor a history, or a model comes without a closure.
        ValueError: If ``steps`` is below 1.

    Notes:
        ``time_constant`` is ``-1 / ln(1 - lr w)``, about ``1 / (lr w)``: after so many steps 63 % of what the weights were
        has decayed, and so much of a change of weight decay (or of the learning rate) shows. Squared norms take half as long.

        ``share_of_limit`` is ``w ||W||_2 / ||O||_2``, with the last update. If no update is larger than that one, the share
        cannot pass 1 from below, since ``||W'||_2 <= (1 - lr w) ||W||_2 + lr ||O||_2``; for Muon, whose updates all have one
        spectral norm, that is the ball of arXiv 2506.15054. Updates that point the same way for a time constant bring it
        to 1; updates that are orthogonal to each other bring the Frobenius norm to ``sqrt(lr / (w (2 - lr w))) ||O||_F``, and
        ``share_of_walk`` is ``||W||_F`` over that.

        ``rotation`` is the mean angle between W and W' in radians, exact from the three lengths of a triangle, and
        ``rotation_at_equilibrium`` is ``sqrt(2 lr w)``, what it is where orthogonal updates and decay balance (Kosson, Messmer
        and Jaggi, arXiv 2305.17212, for AdamW).

        ``growth`` is by how much ln ||W||_F grows in one time constant at its present rate, -1 for pure decay. A verdict is
        ``steady`` below 0.1 in size, ``grows`` or ``shrinks`` above, and ``unclear`` if two standard errors over the steps of a
        copy reach across. A history has no such error, but covers many more steps.

        All of this counts with decoupled weight decay and the learning rate of the moment. Where torch's optimizers add the decay
        to the gradient (``Adam``, ``SGD`` with momentum), or there is none, only norm and rotation are known.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(20, 10)
        >>> muon = torch.optim.Muon([model.weight], lr=0.02, weight_decay=0.1)
        >>> found = equilibrium(model, muon, lambda m: m(torch.randn(64, 20)).square().mean())
        >>> found.details[["name", "time_constant", "share_of_limit"]].round(2)
             name  time_constant  share_of_limit
        0  weight          499.5            0.08
    """
    check_whole_number("steps", steps, 1)
    if isinstance(source, History):
        rows = _of_history(source, optimizers_of(optimizer))
    elif isinstance(source, nn.Module):
        if closure is None:
            raise TypeError("expected closure(model), which returns the loss of a batch, beside a model")
        rows = _of_model(source, optimizers_of(optimizer), closure, steps)
    else:
        raise TypeError(f"expected a torch.nn.Module or a History, got {type(source).__name__}")
    return Equilibrium(pd.DataFrame(rows))


def _of_model(model: nn.Module, optimizers: list[Optimizer], closure: Closure, steps: int) -> list[dict[str, Any]]:
    """Return the rows of a model, from some steps of a copy."""
    with kept_random_state():
        twin, twins = isolated(model, optimizers)
        readings = matrix_readings(twin, parameter_roles(twin))
        held = {id(p): (one, group) for one in twins for group in one.param_groups for p in group["params"]}
        named = {name: p for name, p in twin.named_parameters() if name in readings and id(p) in held}
        if not named:
            raise InputError("expected an optimizer that updates weight matrices of the model, found none")
        rates: dict[str, list[_Step]] = {}
        for step in range(steps):
            before = {name: p.detach().clone() for name, p in named.items()}
            loss = gradients_of(twin, twins, closure)
            if not math.isfinite(loss):
                raise InputError(f"expected a finite loss, got {loss} in step {step + 1}: the training diverges")
            for one in twins:
                one.step()
            for name, p in named.items():
                old, new = readings[name].pieces(before[name]), readings[name].pieces(p.detach())
                pairs = [(a, b) for x, y in zip(old, new, strict=True) for a, b in zip(x, y, strict=True)]
                for number, (W, moved) in enumerate(pairs):
                    label = f"{name}[{number}]" if len(pairs) > 1 else name
                    setting = _Decay.of(*held[id(p)])
                    rates.setdefault(label, []).append(_Step.of(setting, W, moved, last=step == steps - 1))
    return [_row(label, found) for label, found in rates.items()]


@dataclass(frozen=True)
class _Decay:
    """Learning rate and weight decay of a group; the decay is NaN if the optimizer adds it to the gradient."""

    lr: float
    weight_decay: float

    @classmethod
    def of(cls, optimizer: Optimizer, group: Mapping[str, Any]) -> "_Decay":
        decay = float(group.get("weight_decay", 0.0))
        kind = type(optimizer)
        plain_sgd = isinstance(optimizer, torch.optim.SGD) and not group["momentum"]  # adding it is decaying by it
        of_torch = kind.__module__.startswith("torch.optim") and kind.__name__ not in DECOUPLED and not plain_sgd
        if of_torch and decay and not group.get("decoupled_weight_decay"):
            decay = math.nan
        return cls(float(group["lr"]), decay)

    @property
    def time_constant(self) -> float:
        """Steps after which 1 / e of the weights is left."""
        share = self.lr * self.weight_decay
        return -1 / math.log1p(-share) if 0 < share < 1 else math.nan


@dataclass(frozen=True)
class _Step:
    """What one step, or the steps between two captures, did to a matrix."""

    decay: _Decay
    log_growth: float  # of the Frobenius norm
    angle: float
    norm: float = math.nan  # spectral, after the step
    frobenius: float = math.nan
    update_norm: float = math.nan  # of O
    update_frobenius: float = math.nan

    @classmethod
    def of(cls, decay: _Decay, W: Tensor, moved: Tensor, *, last: bool) -> "_Step":
        W, moved = W.double().cpu(), moved.double().cpu()
        a, b, change = float(W.norm()), float(moved.norm()), float((moved - W).norm())
        norms: dict[str, float] = {}
        if last:
            norms = {"norm": _spectral_norm(moved), "frobenius": b}
            if decay.lr > 0 and not math.isnan(decay.weight_decay):
                update = ((1 - decay.lr * decay.weight_decay) * W - moved) / decay.lr
                norms |= {"update_norm": _spectral_norm(update), "update_frobenius": float(update.norm())}
        return cls(decay, math.log(b / a) if a > 0 and b > 0 else math.nan, angle_of(a, b, change), **norms)


def angle_of(a: float, b: float, change: float) -> float:
    """Return the angle between two vectors from their lengths and that of their difference, also if it is tiny."""
    if not a * b > 0:
        return math.nan
    return 2 * math.asin(math.sqrt(min(1.0, max(0.0, (change**2 - (a - b) ** 2) / (4 * a * b)))))


def _spectral_norm(W: Tensor) -> float:
    top, _, _ = leading_directions(W, 1)
    return float(top[0]) if len(top) else 0.0


def _row(name: str, found: list[_Step]) -> dict[str, Any]:
    """Return the row of a matrix from its steps, of which the last one knows norms."""
    last = found[-1]
    lr, decay, time = last.decay.lr, last.decay.weight_decay, last.decay.time_constant
    growth = np.array([step.log_growth for step in found]) * time
    error = float(growth.std(ddof=1) / math.sqrt(len(growth))) if len(growth) > 1 else math.nan
    row: dict[str, Any] = {
        "name": name, "lr": lr, "weight_decay": decay, "time_constant": time,
        "norm": last.norm, "update_norm": last.update_norm, "limit": math.nan, "share_of_limit": math.nan,
        "share_of_walk": math.nan, "rotation": float(np.mean([step.angle for step in found])),
        "rotation_at_equilibrium": math.nan, "growth": float(growth.mean()), "growth_error": error,
    }  # fmt: skip
    if not math.isnan(time):
        row["rotation_at_equilibrium"] = math.sqrt(2 * lr * decay)
        if last.update_norm > 0:
            row["limit"] = last.update_norm / decay
            row["share_of_limit"] = last.norm / row["limit"]
            row["share_of_walk"] = last.frobenius / (math.sqrt(lr / (decay * (2 - lr * decay))) * last.update_frobenius)
    return row | {"verdict": _verdict(row["growth"], error)}


def _verdict(growth: float, error: float) -> str:
    """Return what the growth says."""
    if math.isnan(growth):
        return "no time constant"
    margin = 0.0 if math.isnan(error) else 2 * error
    if abs(growth) + margin < STEADY:
        return "steady"
    if abs(growth) - margin < STEADY:
        return "unclear"
    return "grows" if growth > 0 else "shrinks"


def _of_history(history: History, optimizers: list[Optimizer]) -> list[dict[str, Any]]:
    """Return the rows of the layers of a run, from its last two captures."""
    details = history.details
    details = details[(details["quantity"] == "weights") & (details["tied_to"] == "")]
    steps = sorted(set(details["step"]))
    if len(steps) < 2:
        raise InputError(f"{history.run_dir}: expected at least two captures, got {len(steps)}")
    before, now = (details[details["step"] == step].set_index("name") for step in steps[-2:])
    if before["distance"].isna().all() and now["distance"].isna().all():
        raise InputError(f"{history.run_dir}: expected distances, which a Monitor measures only with an optimizer")
    groups = dict(_groups_by_layer(optimizers))
    rows = []
    for name in now.index.intersection(before.index):
        decay = next((groups[key] for key in (name, f"{name}.weight", name.split("[")[0]) if key in groups), None)
        if decay is None:
            continue
        norms = [10 ** (row.loc[name, "log_norm"] / 2) for row in (before, now)]
        # the last capture of a run is not one of a step
        moved = now if not math.isnan(now.loc[name, "distance"]) else before
        change, length = float(moved.loc[name, "distance"]), 10 ** (moved.loc[name, "log_norm"] / 2)
        start = change / float(moved.loc[name, "relative_distance"])
        growth = math.log(norms[1] / norms[0]) / (steps[-1] - steps[-2])
        norm = math.sqrt(now.loc[name, "spectral_norm"])
        rows.append(_row(name, [_Step(decay, growth, angle_of(start, length, change), norm, norms[1])]))
    if not rows:
        raise InputError(
            f"{history.run_dir}: expected an optimizer whose groups name the parameters of the layers, such as "
            "AdamW(model.named_parameters()) or HTMuon(parameter_groups(model)), found none of them"
        )
    return rows


def _groups_by_layer(optimizers: list[Optimizer]) -> Iterator[tuple[str, _Decay]]:
    """Yield the name of each named parameter, and the decay of its group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for name in group.get("param_names", ()):
                yield name, _Decay.of(optimizer, group)


@dataclass(frozen=True, repr=False, eq=False)
class Equilibrium:
    """The result of ``equilibrium``.

    Attributes:
        details: One row for each matrix: ``lr``, ``weight_decay``, ``time_constant`` in steps; ``norm``, the spectral norm of the
            weight, ``update_norm``, that of the last update, ``limit``, the largest norm that such updates can reach, and
            ``share_of_limit``; ``share_of_walk``; ``rotation`` a step and ``rotation_at_equilibrium``, in radians; ``growth`` of
            ln ||W||_F in a time constant, ``growth_error``, and a ``verdict``: steady, grows, shrinks or unclear.
    """

    details: pd.DataFrame

    def headline(self) -> str:
        """Which layers still grow, and when a change of weight decay will show."""
        times = self.details["time_constant"].dropna()
        if times.empty:
            return "No matrix has decoupled weight decay, so none has an equilibrium with it."
        counts = self.details["verdict"].value_counts()
        parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        growing = self.details[self.details["verdict"] == "grows"].sort_values("growth", ascending=False)["name"]
        most = f" (the most: {visible(growing.iloc[0])})" if len(growing) else ""
        low, high = times.min(), times.max()
        when = f"{low:,.0f}" if high < 1.01 * low else f"{low:,.0f} to {high:,.0f}"
        return f"{len(self.details)} matrices: {parts}{most}. A change of weight decay takes {when} steps to show."

    def __repr__(self) -> str:
        shown = pd.DataFrame({"name": self.details["name"].map(visible)})
        formats = {
            "time_constant": "{:,.0f}", "norm": "{:.3g}", "limit": "{:.3g}", "share_of_limit": "{:.1%}",
            "share_of_walk": "{:.2f}", "rotation": "{:.2g}", "rotation_at_equilibrium": "{:.2g}", "growth": "{:+.2f}",
        }  # fmt: skip
        for name, form in formats.items():
            shown[name] = ["" if math.isnan(value) else form.format(value) for value in self.details[name]]
        shown["verdict"] = self.details["verdict"]
        return f"{self.headline()}\n{as_text(shown, ('share_of_walk', 'norm', 'limit', 'rotation_at_equilibrium'))}"
