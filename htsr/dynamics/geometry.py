"""Which layers want a spectral step, and whether the power p of its singular values matters there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from htsr.audit.arguments import check_whole_number
from htsr.audit.layout import as_text
from htsr.audit.progress import tqdm
from htsr.audit.table import shortened
from htsr.dynamics.coordinate_probe import Closure
from htsr.dynamics.geometry_measurement import KINDS, Measurement, Row, closures_of
from htsr.dynamics.geometry_steps import MUON
from htsr.dynamics.random_state import kept_random_state
from htsr.dynamics.step_copies import isolated
from htsr.optim.parameter_groups import ParameterRole, parameter_roles
from htsr.text import visible

# The range of HTMuon's p in which somebody has reported a gain.
POWERS = (-0.25, 0.0, 0.25, 0.5)
# Differences below this share of the decrease are rounding of a loss in float32.
LEAST_GAIN = 1e-3


def gradient_geometry(
    model: nn.Module,
    closure: Closure | Sequence[Closure],
    *,
    powers: Sequence[float] = POWERS,
    batches: int = 4,
    lr: float = 0.02,
    alone: bool = True,
    newton_schulz: Sequence[tuple[float, float, float]] = MUON,
    progress: bool | None = None,
) -> "GradientGeometry":
    """Measure which weight matrices want Muon's spectral step, and whether HTMuon's power p matters now.

    Args:
        model: The model, as it stands in training. A copy is measured, so its parameters, gradients, buffers and mode stay as
            they are, and so do the global random states.
        closure: Returns the loss of a batch, ``closure(model)``, of the model that it gets. It has to draw the batch from the
            global random numbers of torch, numpy or Python, so that the same seed gives the same batch. Or a list of closures,
            each for a batch of its own that is always the same.
        powers: The powers p to try; 0, which is Muon, is added.
        batches: How many batches to draw, if ``closure`` is one function. The standard errors come from them.
        lr: The learning rate at which steps are compared, in units of ``HTMuon`` and of Muon. HTMuon's default.
        alone: Whether to measure steps of each matrix alone, too: a forward pass for each matrix, power and batch, which takes
            most of the time. Without it, ``decreases`` knows only slopes.
        newton_schulz: Coefficients (a, b, c) of each Newton-Schulz step, by default the five of ``torch.optim.Muon``.
        progress: True or False shows or hides the progress bar; by default it is shown on a terminal, after a second.

    Returns:
        A row for each matrix, the decreases of the loss, and a suggested grouping for ``htsr.optim.parameter_groups``.

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
        ``frobenius`` is the decrease ``L(W) - L(W - lr D_p)`` of the loss of the *next* batch, from one forward pass before and
        one after the step. ``spectral`` is the decrease of the step scaled to Muon's spectral norm
        (``HTMuon(scale="spectral")``). At p = 0 the two are one step, Muon's. In ``decreases`` one matrix moves at a time; there
        ``slope`` is ``<G', D_p>`` with the gradient G' of the next batch, ``curvature`` is ``2 (lr slope - frobenius) / lr^2``,
        and ``spectral`` follows from these two. In ``together`` all matrices that HTMuon updates move at once, as in a step of
        training, and both are measured.

        p matters if the ``frobenius`` decrease at some p differs from that at p = 0 by more than its noise, and by more than
        a thousandth: a paired t test over the batches, at 5 % divided by the number of other powers.

        All of this speaks of one step without momentum. In ``benchmarks/gradient_geometry.py``, the order of the powers by
        ``frobenius`` in ``together`` agreed with that of the losses after 50 steps from a state that had trained before (rank
        correlations of 0.93 and 0.86). It did not always from an initial state (-0.51 and 0.59), nor did the sum over
        ``decreases``. So measure in the middle of a training, and trust ``together``.

    Example:
        >>> import torch
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
    closures = closures_of(closure, batches)
    ranks: list[Row] = []
    decreases: list[Row] = []
    with kept_random_state():
        measured = Measurement(isolated(model, [])[0], roles, closures)
        total, hidden = len(closures) * (len(measured.names) + 1), None if progress is None else not progress
        with tqdm(total=total, desc="geometry", unit="parameter", delay=1, disable=hidden) as bar:
            for batch in range(len(closures)):
                for more_ranks, more_decreases in measured.of_batch(batch, powers, lr, newton_schulz, alone):
                    ranks += more_ranks
                    decreases += more_decreases
                    bar.update()
    return _result(pd.DataFrame(ranks), pd.DataFrame(decreases), roles, len(closures))


def _result(
    ranks: pd.DataFrame, decreases: pd.DataFrame, roles: Mapping[str, ParameterRole], batches: int
) -> "GradientGeometry":
    """Return means and standard errors over batches."""
    decreases = decreases.reindex(columns=["name", "batch", "power", *KINDS, "slope", "curvature"])
    rows, tables, together = [], [], pd.DataFrame()
    for name, of in decreases.groupby("name", sort=False):
        table = _over_batches(of)
        if not name:
            together = table.drop(columns=["name", "slope", "curvature"])
            continue
        own = ranks[ranks["name"] == name].reindex(
            columns=["name", "parameter", "rows", "columns", "nuclear_rank", "activation_stable_rank", "left_behind"]
        )
        ratio, error = _mean_and_error(np.log2(own["nuclear_rank"] / own["activation_stable_rank"]).to_numpy())
        means = own[["nuclear_rank", "activation_stable_rank", "left_behind"]].mean().to_dict()
        best = table.loc[table["frobenius"].idxmax()] if table["frobenius"].notna().all() else None
        at_zero = float(table.loc[table["power"] == 0, "frobenius"].iloc[0])
        rows.append(
            {
                **own.iloc[0][["name", "parameter", "rows", "columns"]].to_dict(), **means,
                "log2_ratio": ratio, "ratio_error": error, "decrease": at_zero,
                "best_power": math.nan if best is None else best["power"],
                "gain": math.nan if best is None else best["gain"],
                "gain_error": math.nan if best is None else best["gain_error"],
                "matters": matters(table, batches),
            }
        )  # fmt: skip
        tables.append(table)
    return GradientGeometry(pd.DataFrame(rows), pd.concat(tables, ignore_index=True), together, roles, batches)


def _over_batches(of: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each power: means over batches, and standard errors, also of the gain over p = 0 on each batch."""
    at_zero = of[of["power"] == 0].set_index("batch")["frobenius"]
    rows = []
    for power, own in of.groupby("power"):
        row: dict[str, Any] = {"name": own["name"].iloc[0], "power": power}
        for kind in KINDS:
            row[kind], row[f"{kind}_error"] = _mean_and_error(own[kind].to_numpy())
        gains = own.set_index("batch")["frobenius"] - at_zero
        row["gain"], row["gain_error"] = _mean_and_error(gains.to_numpy())
        rows.append(row | {name: own[name].mean() for name in ("slope", "curvature")})
    return pd.DataFrame(rows)


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of some values and its standard error, NaN for a single value."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def matters(table: pd.DataFrame, batches: int) -> bool | None:
    """Return whether some power differs from p = 0 by more than its noise; None if nobody can know."""
    others = table[table["power"] != 0]
    if batches < 2 or others.empty or table["gain"].isna().any():
        return None
    least = LEAST_GAIN * abs(float(table.loc[table["power"] == 0, "frobenius"].iloc[0]))
    noise = quantile(batches, 0.05 / len(others)) * others["gain_error"]
    return bool((others["gain"].abs() > noise.clip(lower=least)).any())


def quantile(batches: int, level: float) -> float:
    """Return how many standard errors a mean over batches deviates by chance, two-sided, in a share ``level`` of cases."""
    from scipy.special import stdtrit

    return float(stdtrit(batches - 1, 1 - level / 2))


@dataclass(frozen=True, repr=False, eq=False)
class GradientGeometry:
    """The result of ``gradient_geometry``.

    Attributes:
        details: One row for each matrix: its sides; ``nuclear_rank`` of the gradient and ``activation_stable_rank``;
            ``left_behind``, the share of singular directions that the Newton-Schulz steps leave below 1/2; ``log2_ratio`` of the
            two ranks, with ``ratio_error``; ``decrease`` of the loss by a step at p = 0; ``best_power``, with its ``gain`` over
            p = 0 and ``gain_error``; ``matters``, whether some p differs from p = 0 by more than the noise (None with a single
            batch).
        decreases: One row for each matrix and power: ``frobenius``, ``spectral``, ``gain`` over p = 0 in the first of these,
            with standard errors over batches; ``slope`` and ``curvature`` of the loss along the step.
        together: The same for all matrices that HTMuon updates at once, one row for each power; empty if there are none.
        roles: What ``htsr.optim.parameter_roles`` says of each parameter.
        batches: The number of batches.
    """

    details: pd.DataFrame
    decreases: pd.DataFrame
    together: pd.DataFrame
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
        """Two or three sentences: which matrices favour which step, and whether p matters."""
        grouping = self.grouping
        counts = [sum(algorithm == kind for algorithm in grouping.values()) for kind in ("htmuon", "adamw")]
        moved = [name for name, algorithm in grouping.items() if algorithm != self.roles[name].algorithm]
        change = f", other than by name and type for {shortened(moved)}" if moved else ", as by name and type"
        return f"A spectral step suits {counts[0]} parameters, AdamW {counts[1]}{change}. {self._of_powers()}"

    def _of_powers(self) -> str:
        """Return whether p matters to a step of all matrices together, and to how many of them alone."""
        known = matters(self.together, self.batches) if len(self.together) else None
        if known is None:
            return "Whether p matters needs several batches." if self.batches < 2 else "HTMuon would update no matrix."
        each = self.details["matters"]
        alone = (
            "" if each.isna().all() else f" Alone, it matters to {int(each.eq(True).sum())} of {len(each)} matrices."
        )
        if not known:
            return f"p does not matter here: no step differs from that at p = 0 by more than the noise.{alone}"
        best = self.together.loc[self.together["frobenius"].idxmax()]
        values = f"{best['frobenius']:.3g} at p = {best['power']:g}"
        zero = self.together.loc[self.together["power"] == 0, "frobenius"].iloc[0]
        beside = "" if best["power"] == 0 else f", {zero:.3g} at p = 0"
        return f"p matters here: a step lowers the loss most, by {values}{beside}.{alone}"

    def __repr__(self) -> str:
        columns = ["rows", "columns", "nuclear_rank", "activation_stable_rank"]
        shown = self.details[["name", *columns]].assign(
            name=self.details["name"].map(visible),
            **{column: self.details[column].map("{:.1f}".format) for column in columns[2:]},
            log2_ratio=[
                _with_error(*pair) for pair in zip(self.details["log2_ratio"], self.details["ratio_error"], strict=True)
            ],
            left_behind=self.details["left_behind"].map("{:.1%}".format),
            best_p=["" if math.isnan(power) else f"{power:g}" for power in self.details["best_power"]],
            gain=[
                _with_error(gain / abs(decrease), error / abs(decrease))
                for gain, error, decrease in self.details[["gain", "gain_error", "decrease"]].to_numpy()
            ],
            matters=self.details["matters"].map({True: "yes", False: "no"}).fillna("unknown"),
        )
        return f"{self.headline()}\n{as_text(shown, ('rows', 'columns', 'left_behind'))}"


def _with_error(value: float, error: float) -> str:
    """Return a number with its standard error for people, empty if it is missing."""
    return "" if math.isnan(value) else f"{value:+.2f}" if math.isnan(error) else f"{value:+.2f} ± {error:.2f}"
