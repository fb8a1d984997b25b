"""Which layers want a spectral step, and whether the power p of its singular values matters there."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from htsr.audit.arguments import check_whole_number
from htsr.audit.layout import as_text
from htsr.audit.progress import tqdm
from htsr.audit.table import shortened
from htsr.dynamics.coordinate_probe import Closure, kept_random_state, seed_everything
from htsr.dynamics.geometry_activations import incoming_activations
from htsr.dynamics.geometry_steps import MUON, Decrease, Gradient
from htsr.errors import InputError
from htsr.optim.matrices import Reading
from htsr.optim.parameter_groups import ParameterRole, parameter_roles
from htsr.text import visible

# The range of HTMuon's p in which somebody has reported a gain.
POWERS = (-0.25, 0.0, 0.25, 0.5)
# Two calls on one batch may differ by this share of the loss, since GPUs add in any order.
SAME_LOSS = 1e-4
# Differences below this share of the decrease are rounding of a loss in float32.
LEAST_GAIN = 1e-3


def gradient_geometry(
    model: nn.Module,
    closure: Closure | Sequence[Closure],
    *,
    powers: Sequence[float] = POWERS,
    batches: int = 4,
    lr: float = 0.02,
    newton_schulz: Sequence[tuple[float, float, float]] = MUON,
    progress: bool | None = None,
) -> "GradientGeometry":
    """Measure which weight matrices want Muon's spectral step, and whether HTMuon's power p matters to them.

    Args:
        model: The model, as it stands in training. A copy is measured, so its parameters, gradients, buffers and mode stay as
            they are, and so do the global random states.
        closure: Returns the loss of a batch, ``closure(model)``, of the model that it gets. It has to draw the batch from the
            global random numbers of torch, numpy or Python, so that the same seed gives the same batch. Or a list of closures,
            each for a batch of its own that is always the same.
        powers: The powers p to try; 0, which is Muon, is added.
        batches: How many batches to draw, if ``closure`` is one function. The standard errors come from them.
        lr: The learning rate at which steps are compared, in units of ``HTMuon`` and of Muon. HTMuon's default.
        newton_schulz: Coefficients (a, b, c) of each Newton-Schulz step, by default the five of ``torch.optim.Muon``.
        progress: True or False shows or hides the progress bar; by default it is shown on a terminal, after a second.

    Returns:
        A row for each matrix, the predicted decreases, and a suggested grouping for ``htsr.optim.parameter_groups``.

    Raises:
        InputError: If the closure returns another loss for the same seed, does not use the model that it gets, or the model has
            no matrices.
        TypeError: If ``model`` is no module, or ``batches`` is not a whole number.
        ValueError: If ``batches`` is below 1, ``lr`` is not positive, or a power is outside [-0.25, 1].

    Notes:
        *Which algorithm.* ``log2_ratio`` is log2 of the nuclear rank of the gradient, ``(||G||_* / ||G||_F)^2``, over the
        stable rank of the incoming activations, ``||A||_F^2 / ||A||_2^2``. If it is positive, the guaranteed decrease of a
        spectral step is larger than that of a Euclidean one (Davis and Drusvyatskiy, arXiv 2512.04299). The grouping follows
        its sign where the 95 % interval over batches leaves zero out, and ``parameter_roles`` elsewhere. For an embedding A has
        one-hot rows; for a convolution a row for each position. Where the inputs are unknown, the ratio is missing.

        *Whether p matters.* With ``G = U S V^T`` of one batch, a step is ``W - lr D_p``, where ``D_p`` is ``U S^p V^T`` times
        Muon's factor sqrt(max(1, rows / columns)), scaled to Muon's Frobenius norm sqrt(rank) (``HTMuon(scale="match_muon")``).
        The loss of the *next* batch before and after the step, with one matrix moved at a time, gives the ``frobenius`` decrease
        ``L(W) - L(W - lr D_p)``. With ``<G', D_p>``, where G' is the gradient of that next batch, it also gives the curvature
        along the step, ``2 (lr <G', D_p> - decrease) / lr^2``. ``spectral`` is the decrease of the step scaled to Muon's
        spectral norm (``HTMuon(scale="spectral")``) by this quadratic model, and ``best`` the decrease at the best learning
        rate of each p, ``<G', D_p>^2 / (2 curvature)``, from means over batches; it is missing where the model has no best rate.
        At p = 0 the first two are one step, Muon's.

        p matters to a matrix if the ``frobenius`` decrease of some p differs from that of p = 0 by more than its noise, and by
        more than a thousandth: a paired t test over the batches, at 5 % divided by the number of other powers. All of this
        speaks of one step of one matrix, without momentum. ``benchmarks/gradient_geometry.py`` compares it with training.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5))
        >>> def loss(model):
        ...     x = torch.randn(64, 20)
        ...     return nn.functional.cross_entropy(model(x), x[:, :5].argmax(1))
        >>> geometry = gradient_geometry(model, loss)
        >>> geometry.grouping
        {'0.weight': 'htmuon', '2.weight': 'htmuon', '4.weight': 'htmuon'}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    check_whole_number("batches", batches, 1)
    if not lr > 0:
        raise ValueError(f"expected lr to be positive, got {lr!r}")
    powers = tuple(sorted({0.0, *map(float, powers)}))
    if not -0.25 <= powers[0] <= powers[-1] <= 1:
        raise ValueError(f"expected powers from -0.25 to 1, got {', '.join(map(str, powers))}")
    roles = parameter_roles(model)
    with kept_random_state():
        measured = _Measurement(copy.deepcopy(model), roles, _closures(closure, batches))
        rows, decreases = [], []
        for name, part in tqdm(
            measured.matrices,
            desc="geometry",
            unit="matrix",
            delay=1,
            disable=None if progress is None else not progress,
        ):
            row, table = measured.row(name, part, powers, lr, newton_schulz)
            rows.append(row)
            decreases.append(table)
    return GradientGeometry(pd.DataFrame(rows), pd.concat(decreases, ignore_index=True), roles, measured.batches)


def _closures(closure: Closure | Sequence[Closure], batches: int) -> list[Closure]:
    """Return one closure for each batch, which returns the same loss whenever it is called."""
    if not callable(closure):
        return [partial(_seeded, one, 0) for one in closure]
    return [partial(_seeded, closure, seed) for seed in range(batches)]


def _seeded(closure: Closure, seed: int, model: nn.Module) -> Tensor:
    seed_everything(seed)
    return closure(model)


class _Measurement:
    """Gradients, incoming activations and losses of a copy of a model on several batches."""

    def __init__(self, model: nn.Module, roles: Mapping[str, ParameterRole], closures: Sequence[Closure]) -> None:
        self._closures, self._model = closures, model
        self._readings = matrix_readings(model, roles)
        named = model.named_parameters()
        self._parameters = {name: p for name, p in named if name in self._readings and p.requires_grad}
        if not self._parameters:
            raise InputError(f"expected a model with weight matrices that can be trained, got {type(model).__name__}")
        self._losses: list[float] = []
        self._gradients: list[Mapping[str, Tensor]] = []
        self._activations = []
        for one in closures:
            with incoming_activations(model) as activations:
                loss = one(model)
            found = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
            used = {name: g for name, g in zip(self._parameters, found, strict=True) if g is not None}
            if not used:
                raise InputError("expected closure(model) to use the model that it gets: no parameter has a gradient")
            self._gradients.append(used)
            self._activations.append(activations)
            first = float(loss.detach())
            self._losses.append(self._loss(one))
            if abs(self._losses[-1] - first) > SAME_LOSS * abs(first):
                raise InputError(
                    f"expected the same loss for the same seed and weights, got {first:.6g} and {self._losses[-1]:.6g}: "
                    "draw the batch from torch's global random numbers, or pass a list of closures, one for each fixed batch"
                )
        self._known = set.intersection(*(set(gradients) for gradients in self._gradients))

    @property
    def batches(self) -> int:
        """The number of batches."""
        return len(self._closures)

    @property
    def matrices(self) -> list[tuple[str, int]]:
        """The name of a parameter, and the number of a matrix in it, for each matrix with a gradient in all batches."""
        return [
            (name, number)
            for name, p in self._parameters.items()
            if name in self._known
            for number in range(len(self._pieces(name, p)))
        ]

    def row(
        self,
        name: str,
        number: int,
        powers: Sequence[float],
        lr: float,
        newton_schulz: Sequence[tuple[float, float, float]],
    ) -> tuple[dict[str, Any], pd.DataFrame]:
        """Return the row of a matrix, and a table of its decreases with a row for each power."""
        parameter = self._parameters[name]
        gradients = [self._pieces(name, gradient[name])[number] for gradient in self._gradients]
        found = [Gradient.of(gradient) for gradient in gradients]
        several = len(self._pieces(name, parameter)) > 1
        label = f"{name}[{number}]" if several else name
        rank = [math.nan if one is None else one.nuclear_rank for one in found]
        stable = [activations.stable_rank(parameter) for activations in self._activations]
        ratio, error = _mean_and_error(np.log2(np.array(rank) / np.array(stable)))
        table = self._decreases(name, number, found, gradients, powers, lr)
        row: dict[str, Any] = {
            "name": label, "parameter": name, "rows": gradients[0].shape[0], "columns": gradients[0].shape[1],
            "nuclear_rank": float(np.mean(rank)), "activation_stable_rank": float(np.mean(stable)),
            "log2_ratio": ratio, "ratio_error": error,
            "left_behind": float(np.mean([math.nan if one is None else one.left_behind(newton_schulz) for one in found])),
        }  # fmt: skip
        row |= _what_matters(table)
        return row, _summed(table, label)

    def _decreases(
        self,
        name: str,
        number: int,
        found: Sequence[Gradient | None],
        gradients: Sequence[Tensor],
        powers: Sequence[float],
        lr: float,
    ) -> pd.DataFrame:
        """Return the decreases of the steps from each batch's gradient, on the batch that follows, one row a batch and power."""
        rows = []
        for batch, gradient in enumerate(found):
            following = (batch + 1) % len(found)
            for power in powers:
                row: dict[str, Any] = {"batch": batch, "power": power, "frobenius": math.nan, "spectral": math.nan}
                if gradient is not None:
                    step, shorter = gradient.step(power)
                    loss = self._moved(name, number, lr * step, self._closures[following])
                    slope = float((gradients[following].double().cpu() * step).sum())
                    model = Decrease.measured(slope, lr, self._losses[following] - loss)
                    row |= {"frobenius": model.at(lr), "spectral": model.at(lr * shorter)}
                    row |= {"slope": model.slope, "curvature": model.curvature}
                rows.append(row)
        return pd.DataFrame(rows)

    @torch.no_grad()
    def _moved(self, name: str, number: int, step: Tensor, closure: Closure) -> float:
        """Return the loss with one matrix moved by minus a step; the copy of the model is as it was afterwards."""
        parameter, reading = self._parameters[name], self._readings[name]
        before = parameter.detach().clone()
        stacks = reading.pieces(torch.zeros(parameter.shape, dtype=step.dtype))
        _matrices(stacks)[number].copy_(step)
        parameter.sub_(reading.join(stacks, parameter.shape).to(parameter))
        try:
            return self._loss(closure)
        finally:
            parameter.copy_(before)

    @torch.no_grad()
    def _loss(self, closure: Closure) -> float:
        return float(closure(self._model))

    def _pieces(self, name: str, tensor: Tensor) -> list[Tensor]:
        """Return the matrices in a parameter, or in something of its shape."""
        return _matrices(self._readings[name].pieces(tensor))


def _matrices(stacks: Sequence[Tensor]) -> list[Tensor]:
    """Return views of the matrices in some stacks."""
    return [matrix for stack in stacks for matrix in stack]


def matrix_readings(model: nn.Module, roles: Mapping[str, ParameterRole]) -> dict[str, Reading]:
    """Return how each parameter that holds weight matrices is read as these, by name."""
    found = {}
    for name, parameter in model.named_parameters():
        if roles[name].algorithm == "htmuon":
            found[name] = roles[name].reading
        elif parameter.ndim == 2 and parameter.is_floating_point() and roles[name].decay:
            found[name] = Reading()
    return found


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of some values and its standard error, NaN for a single value."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def _what_matters(table: pd.DataFrame) -> dict[str, Any]:
    """Return which power has the largest decrease, its gain over p = 0 with a standard error, and whether p matters."""
    by_power = table.pivot(index="batch", columns="power", values="frobenius")
    if by_power.isna().any(axis=None):  # no gradient in some batch
        return {"decrease": math.nan, "best_power": math.nan, "gain": math.nan, "gain_error": math.nan, "matters": None}
    best = float(by_power.mean().idxmax())
    tests = {float(power): _mean_and_error((by_power[power] - by_power[0.0]).to_numpy()) for power in by_power}
    row = {
        "decrease": float(by_power[0.0].mean()),
        "best_power": best,
        "gain": tests[best][0],
        "gain_error": tests[best][1],
    }
    others = [test for power, test in tests.items() if power != 0]
    if len(by_power) < 2 or not others:
        return row | {"matters": None}
    least = LEAST_GAIN * abs(row["decrease"])
    limit = quantile(len(by_power), 0.05 / len(others))
    return row | {"matters": any(abs(mean) > max(limit * error, least) for mean, error in others)}


def quantile(batches: int, level: float) -> float:
    """Return how many standard errors a mean over batches deviates by chance, two-sided, in a share ``level`` of cases."""
    from scipy.special import stdtrit

    return float(stdtrit(batches - 1, 1 - level / 2))


def _summed(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return means and standard errors over batches, one row for each power."""
    rows = []
    for power, of in table.groupby("power"):
        row: dict[str, Any] = {"name": label, "power": power}
        for quantity in ("frobenius", "spectral"):
            row[quantity], row[f"{quantity}_error"] = _mean_and_error(of[quantity].to_numpy())
        slope, curvature = (of[name].mean() if name in of else math.nan for name in ("slope", "curvature"))
        has_best = slope > 0 and curvature > 0
        rows.append(
            {
                **row,
                "best": slope**2 / (2 * curvature) if has_best else math.nan,
                "slope": slope,
                "curvature": curvature,
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True, repr=False, eq=False)
class GradientGeometry:
    """The result of ``gradient_geometry``.

    Attributes:
        details: One row for each matrix: its sides; ``nuclear_rank`` of the gradient and ``activation_stable_rank``;
            ``log2_ratio`` of the two, with ``ratio_error``; ``left_behind``, the share of singular directions that the
            Newton-Schulz steps leave below 1/2; ``decrease`` of the loss by one step at p = 0; ``best_power``, with its ``gain``
            over p = 0 and ``gain_error``; ``matters``, whether some p differs from p = 0 by more than the noise (missing with
            a single batch).
        decreases: One row for each matrix and power: ``frobenius``, ``spectral`` and ``best``, as in the notes of
            ``gradient_geometry``, with standard errors over batches; ``slope`` and ``curvature`` of the loss along the step.
        roles: What ``htsr.optim.parameter_roles`` says of each parameter.
        batches: The number of batches.
    """

    details: pd.DataFrame
    decreases: pd.DataFrame
    roles: Mapping[str, ParameterRole]
    batches: int

    @property
    def grouping(self) -> dict[str, str]:
        """The algorithm, ``"htmuon"`` or ``"adamw"``, of each parameter with matrices, by name.

        ``htsr.optim.parameter_groups(model, geometry=geometry.grouping)`` makes the groups.
        """
        found = {}
        for name, of in self.details.groupby("parameter", sort=False):
            ratio, error = of["log2_ratio"].mean(), of["ratio_error"].mean()
            margin = quantile(self.batches, 0.05) * error if self.batches > 1 else 0.0
            algorithm = "htmuon" if ratio > 0 else "adamw"
            found[str(name)] = algorithm if abs(ratio) > margin else self.roles[str(name)].algorithm
        return found

    def headline(self) -> str:
        """Two sentences: which matrices favour which step, and for which ones p matters."""
        grouping = self.grouping
        counts = [sum(algorithm == kind for algorithm in grouping.values()) for kind in ("htmuon", "adamw")]
        moved = [name for name, algorithm in grouping.items() if algorithm != self.roles[name].algorithm]
        change = f", other than by name and type for {shortened(moved)}" if moved else ", as by name and type"
        text = f"A spectral step suits {counts[0]} parameters, AdamW {counts[1]}{change}. "
        if self.batches < 2:
            return f"{text}Whether p matters needs several batches."
        matters = self.details[self.details["matters"].eq(True)]
        if not len(matters):
            return f"{text}p does not matter here: for no matrix does a p differ from p = 0 by more than the noise."
        best = ", ".join(f"{power:g} for {number}" for power, number in matters["best_power"].value_counts().items())
        return f"{text}p matters to {len(matters)} of {len(self.details)} matrices; the best one is {best}."

    def __repr__(self) -> str:
        columns = ["rows", "columns", "nuclear_rank", "activation_stable_rank"]
        shown = self.details[["name", *columns]].assign(
            name=self.details["name"].map(visible),
            **{column: self.details[column].map("{:.1f}".format) for column in columns[2:]},
            log2_ratio=[
                _with_error(*pair) for pair in zip(self.details["log2_ratio"], self.details["ratio_error"], strict=True)
            ],
            left_behind=self.details["left_behind"].map("{:.1%}".format),
            best_p=self.details["best_power"].map("{:g}".format),
            gain=[
                _with_error(gain / abs(decrease), error / abs(decrease))
                for gain, error, decrease in self.details[["gain", "gain_error", "decrease"]].to_numpy()
            ],
            matters=self.details["matters"].map({True: "yes", False: "p does not matter here"}).fillna("unknown"),
        )
        return f"{self.headline()}\n{as_text(shown, ('rows', 'columns', 'left_behind'))}"


def _with_error(value: float, error: float) -> str:
    """Return a number with its standard error for people, empty if it is missing."""
    return "" if math.isnan(value) else f"{value:+.2f}" if math.isnan(error) else f"{value:+.2f} ± {error:.2f}"
