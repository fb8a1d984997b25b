"""The coordinate check: do the changes of activations keep their size when the model gets wider?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import nn

from htsr.audit.arguments import check_whole_number
from htsr.audit.layout import as_text
from htsr.audit.progress import tqdm
from htsr.audit.table import shortened
from htsr.dynamics.coordinate_probe import Closure, Probe, rms, rms_of_change
from htsr.dynamics.random_state import kept_random_state, seed_everything
from htsr.dynamics.width_exponent import NOT_TOLD_APART, WidthExponent, fit_width_exponent
from htsr.errors import InputError
from htsr.text import visible
from htsr.training.optimizers import optimizers_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes

# The headline names this many layers.
MAX_NAMED = 3


def coordinate_check(
    make_model: Callable[[int], nn.Module],
    make_optimizer: Callable[[nn.Module], Any],
    closure: Closure,
    *,
    widths: Sequence[int] = (64, 128, 256),
    steps: int = 5,
    seeds: int = 3,
    progress: bool | None = None,
) -> "CoordinateCheck":
    """Train small models of several widths for a few steps, and fit how activations and their changes grow with width.

    A learning rate serves every width if each layer's activations, and their changes, keep their size as the model gets wider
    (the desideratum of arXiv 2310.17813; the check is that of arXiv 2203.03466, appendix D.1). The exponents of the changes
    are what counts: a layer that does not learn has perfect levels.

    Args:
        make_model: Returns a new model of a width. Its layers have the same names at every width.
        make_optimizer: Returns the optimizer of a model, or a list of several that step one after the other.
        closure: Returns the loss of a batch, ``closure(model)``. It may draw a new batch each time, and has to call
            ``model(...)``; the arguments of its first call are the batch on which activations are compared. Draw from torch's
            global random numbers, which are seeded, so that every width sees the same batches.
        widths: At least two. Three, each twice the one before, are the fewest that also show whether a power law holds.
        steps: Training steps. A few are enough, since the updates of the first steps line up most with the activations.
        seeds: Runs at each width, each with its own weights and batches; the standard errors come from them.
        progress: True or False shows or hides the progress bar; by default it is shown on a terminal, after a second.

    Returns:
        A row for each layer, with exponents, standard errors and verdicts.

    Raises:
        InputError: If the closure does not call the model, or no layer has the same name at every width.
        TypeError: If a width, ``steps`` or ``seeds`` is not a whole number, or a model or optimizer is none.
        ValueError: If there are fewer than two widths, or a number is below 1.

    Notes:
        The change is the root mean square of ``h_t - h_0`` over all entries of a layer's output, after the last step, on the
        batch of the first call, in the mode in which the model trains, and with the same random numbers (those of dropout, for
        instance). A module that is called several times counts all of its calls. Modules without parameters of their own have
        no row; the output of the whole model has one, ``(model)``.

        The exponent is the slope of the logarithm on that of the width by least squares, with an intercept for each seed. A
        verdict is ``flat`` if the 95 % interval of the exponent lies within 1/4 of zero, since theory knows only multiples of
        1/2, ``grows`` or ``vanishes`` if it leaves zero out, and ``not told apart from flat`` otherwise: more seeds or widths
        will tell. At finite width an exponent is not yet that of the limit.

    Example:
        >>> import torch
        >>> def mlp(width):
        ...     return nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        >>> def loss(model):
        ...     return (model(torch.randn(16, 32)) - 1).square().mean()
        >>> def adam(model):
        ...     return torch.optim.Adam(model.parameters(), lr=0.001)
        >>> check = coordinate_check(mlp, adam, loss, widths=(32, 64, 128), steps=1)
        >>> check.details[["name", "verdict"]]
              name             verdict
        0        0                flat
        1        2  grows as width^0.8
        2        4  grows as width^1.2
        3  (model)  grows as width^1.2
    """
    for name, value in (("steps", steps), ("seeds", seeds), *(("a width", width) for width in widths)):
        check_whole_number(name, value, 1)
    widths = tuple(sorted(set(map(int, widths))))
    if len(widths) < 2:
        raise ValueError(f"expected at least two widths, got {shortened(widths) or 'none'}")
    for name, function in (("make_model", make_model), ("make_optimizer", make_optimizer), ("closure", closure)):
        if not callable(function) or isinstance(function, nn.Module):
            raise TypeError(f"expected {name} to be a function, got {type(function).__name__}")
    rows: list[dict[str, Any]] = []
    sizes: dict[int, int] = {}
    runs = [(seed, width) for seed in range(seeds) for width in widths]
    with kept_random_state():
        for seed, width in tqdm(
            runs, desc="coordinate check", unit="run", delay=1, disable=None if progress is None else not progress
        ):
            measured, sizes[width] = _one_run(make_model, make_optimizer, closure, width, steps, seed)
            rows += [{"width": width, "seed": seed, **row} for row in measured]
    measurements = pd.DataFrame(rows)
    if len(set(sizes.values())) < len(widths):
        raise InputError(
            "expected make_model(width) to make a model of that width, got "
            f"{', '.join(f'{size} parameters at width {width}' for width, size in sizes.items())}"
        )
    known = measurements.groupby("name", sort=False)["width"].nunique()
    unmatched = tuple(known.index[known < len(widths)])
    measurements = measurements[~measurements["name"].isin(unmatched)].reset_index(drop=True)
    if measurements.empty:
        raise InputError(
            f"expected layers with the same names at every width, found none among {shortened(list(known.index))}"
        )
    last = measurements[measurements["step"] == steps]
    details = pd.DataFrame([_row(str(name), of) for name, of in last.groupby("name", sort=False)])
    return CoordinateCheck(details, measurements, widths, steps, seeds, unmatched)


def _one_run(
    make_model: Callable[[int], nn.Module],
    make_optimizer: Callable[[nn.Module], Any],
    closure: Closure,
    width: int,
    steps: int,
    seed: int,
) -> tuple[list[dict[str, Any]], int]:
    """Train one model and return the level of each layer's activations and of their change, before and after each step.

    The number of its parameters is the second value.
    """
    seed_everything(2 * seed)
    model = make_model(width)
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected make_model({width}) to return a torch.nn.Module, got {type(model).__name__}")
    optimizers = optimizers_of(make_optimizer(model))
    if not optimizers:
        raise TypeError("expected make_optimizer(model) to return an optimizer, got None")
    seed_everything(2 * seed + 1)  # making a wider model takes more random numbers
    probe = Probe(model)
    loss, start = probe.first(closure)
    rows = [{"step": 0, "name": name, "level": rms(outputs), "change": 0.0} for name, outputs in start.items()]
    for step in range(1, steps + 1):
        if step > 1:
            loss = closure(model)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        rows += [
            {"step": step, "name": name, "level": rms(outputs), "change": rms_of_change(outputs, start.get(name, []))}
            for name, outputs in probe.again().items()
        ]
    return rows, sum(p.numel() for p in model.parameters())


def _row(name: str, last: pd.DataFrame) -> dict[str, Any]:
    """Return the row of a layer from its measurements after the last step."""
    row: dict[str, Any] = {"name": name}
    for quantity, prefix in (("change", ""), ("level", "level_")):
        fit, verdict = _fit(last, quantity)
        row |= {f"{quantity}_exponent": fit.exponent, f"{quantity}_error": fit.error, f"{prefix}verdict": verdict}
        means = last.groupby("width")[quantity].mean()
        row |= {f"{quantity}_narrowest": means.iloc[0], f"{quantity}_widest": means.iloc[-1]}
    return row


def _fit(last: pd.DataFrame, quantity: str) -> tuple[WidthExponent, str]:
    """Return the exponent of a quantity and its verdict, or why it has none."""
    values = last[quantity].to_numpy()
    none = WidthExponent(math.nan, math.nan, -math.inf, math.inf)
    if np.isnan(last["change"]).any() and np.isfinite(last["level"]).all() and quantity == "change":
        return none, "gets other inputs at each step"  # as that of a routed expert
    if not np.isfinite(values).all():
        return none, f"not finite at width {last['width'][~np.isfinite(values)].min()}"
    if (values == 0).any():
        return none, "does not change" if quantity == "change" else "zero"
    fit = fit_width_exponent(last["width"].tolist(), values.tolist(), last["seed"].tolist())
    return fit, fit.verdict


@dataclass(frozen=True, repr=False, eq=False)
class CoordinateCheck:
    """The result of ``coordinate_check``.

    Attributes:
        details: One row for each layer, in the order of the forward pass. ``change_exponent`` with ``change_error``, its
            standard error, and ``verdict`` speak of the change of the activations after the last step, ``level_exponent``,
            ``level_error`` and ``level_verdict`` of the activations themselves; ``change_narrowest`` and ``change_widest``,
            and the like for levels, are means over seeds at the smallest and at the largest width.
        measurements: One row for each seed, width, step and layer: ``level`` and ``change``, root mean squares over the
            entries of the layer's output. Step 0 is before training.
        widths: The widths.
        steps: The number of steps.
        seeds: The number of seeds.
        unmatched: Names of layers that do not occur at every width, which have no row.
    """

    details: pd.DataFrame
    measurements: pd.DataFrame
    widths: tuple[int, ...]
    steps: int
    seeds: int
    unmatched: tuple[str, ...] = ()

    def headline(self) -> str:
        """One or two sentences: what was trained, and which layers change differently with the width."""
        counts = f"{self.steps} steps" if self.steps > 1 else "1 step"
        runs = f"{self.seeds} seeds" if self.seeds > 1 else "1 seed"
        text = f"Coordinate check at widths {', '.join(map(str, self.widths))} ({counts}, {runs}): "
        wanted, unknown = self.details["verdict"] == "flat", self.details["verdict"] == NOT_TOLD_APART
        wrong = self.details[~wanted & ~unknown].sort_values("change_exponent", key=abs, ascending=False)
        parts = [f"the changes of {wanted.sum()} of {len(self.details)} layers are flat"]
        if len(wrong):
            named = [f"{visible(row.name)} {row.verdict}" for row in wrong.itertuples(index=False)]
            parts += [*named[:MAX_NAMED], *([f"{len(named) - MAX_NAMED} more are not flat"] * (len(named) > MAX_NAMED))]
        if unknown.any():
            parts.append(f"{unknown.sum()} cannot be told apart from flat with {runs} and these widths")
        if self.unmatched:
            parts.append(
                f"{len(self.unmatched)} do not occur at every width ({visible(self.unmatched[0])}, for instance)"
            )
        return f"{text}{'; '.join(parts)}."

    def plot(self, *, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw changes and levels after the last step against the width.

        Args:
            ax: Two matplotlib axes; a figure of its own by default.

        Returns:
            The matplotlib Figure. Layers with a verdict other than flat are coloured and named.
        """
        from htsr import plots

        last = self.measurements[self.measurements["step"] == self.steps]
        panels = {}
        for quantity, verdict in (("change", "verdict"), ("level", "level_verdict")):
            marked = self.details["name"][self.details[verdict] != "flat"]
            panels[quantity] = (last.rename(columns={quantity: "value"}), list(marked))
        return plots.figure_of(plots.plot_widths(panels, "RMS of activations", ax=ax))

    def __repr__(self) -> str:
        shown = self.details[["name"]].map(visible)
        for quantity, verdict in (("change", "verdict"), ("level", "level_verdict")):
            pairs = zip(self.details[f"{quantity}_exponent"], self.details[f"{quantity}_error"], strict=True)
            shown[f"{quantity}_exponent"] = [exponent_text(*pair) for pair in pairs]
            shown[verdict] = self.details[verdict]
        return f"{self.headline()}\n{as_text(shown, ('level_exponent', 'level_verdict'))}"


def exponent_text(exponent: float, error: float) -> str:
    """Return an exponent with its standard error for people."""
    if math.isnan(exponent):
        return ""
    return f"{exponent:+.2f}" if math.isnan(error) else f"{exponent:+.2f} ± {error:.2f}"
