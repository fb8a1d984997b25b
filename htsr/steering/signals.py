"""Signals: what is measured of each layer to steer it, with the interval in which it may lie by chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from htsr.audit.analysis import analyze
from htsr.audit.column import Column
from htsr.audit.columns import COLUMNS
from htsr.errors import InputError
from htsr.spectra.spectrum import Spectrum
from htsr.tails.power_law import fit_power_law
from htsr.tails.xmin_rules import XminRule, check_xmin
from htsr.training.store.capture import WEIGHTS, Capture
from htsr.training.store.tables import rows_frame
from htsr.weights import open_source
from htsr.weights.inventory import Inventory, Layer

# Half the width of a 95 % interval, in standard errors.
NORMAL_975 = 1.96
# Resamples for the interval of alpha where nobody captured one, as many as a Monitor draws.
BOOTSTRAP = 50
_NUMERIC = {column.name: column for column in COLUMNS if column.dtype != "str"}


@dataclass(frozen=True)
class TailAlpha:
    """The exponent alpha of the tail that a rule chooses, from the eigenvalues alone.

    Args:
        xmin: How the tail is chosen, as in ``fit_power_law``.

    Raises:
        TypeError: If ``xmin`` is neither a name nor a number.
        ValueError: If it is unknown.

    Notes:
        ``"median"`` is Hill's estimate with k = n/2 as TempBalance and AlphaDecay compute it, which the signal ``"hill"`` means;
        ``"median-paper"`` is the form of the papers, whose ``alpha - 1`` is smaller by ``k / (k + 1)``. ``"peak"`` is
        AlphaPruning's and AlphaLoRA's rule, and ``"peak-as-published"`` the one that their code runs.
    """

    xmin: XminRule = "median"

    def __post_init__(self) -> None:
        check_xmin(self.xmin)

    def reading(self, spectrum: Spectrum | None) -> tuple[float, float, float]:
        """Return alpha and the ends of its 95 % interval for the chosen xmin; NaN without a spectrum or a fit."""
        if spectrum is None:
            return (float("nan"),) * 3
        fit = fit_power_law(spectrum, xmin=self.xmin)
        return fit.alpha, fit.alpha - NORMAL_975 * fit.sigma, fit.alpha + NORMAL_975 * fit.sigma


Signal = str | TailAlpha | Callable[[pd.DataFrame], pd.Series]
HILL = TailAlpha("median")


@dataclass(frozen=True)
class Reader:
    """Reads one signal of some layers, from a model or from what a Monitor captured of it.

    ``read_model`` and ``read_capture`` return a table with the columns ``value``, ``low`` and ``high`` and one row a layer. The
    ends are those of the signal's own 95 % interval, or the value itself where the signal has none.
    """

    signal: Signal
    _column: Column | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.signal == "hill":
            object.__setattr__(self, "signal", HILL)
        if isinstance(self.signal, str):
            if self.signal not in _NUMERIC:
                raise ValueError(
                    f"expected signal to be 'hill' or a numeric column of Analysis.details, got {self.signal!r}"
                )
            object.__setattr__(self, "_column", _NUMERIC[self.signal])
        elif not callable(self.signal) and not isinstance(self.signal, TailAlpha):
            raise TypeError(f"expected signal to be a name, a TailAlpha or a function, got {self.signal!r}")

    def read_model(self, model: nn.Module, names: Sequence[str], *, interval: bool) -> pd.DataFrame:
        """Measure the layers as they are now, and no more of them than the signal needs."""
        listed = open_source(model)
        layers = {layer.name: layer for layer in listed.layers}
        if isinstance(self.signal, TailAlpha):
            return _table({name: self.signal.reading(_spectrum(layers[name])) for name in names})
        options: dict[str, Any] = {"bulk": not isinstance(self.signal, str)}
        if self._column is not None and self._column.needs:
            options[self._column.needs] = BOOTSTRAP if self._column.needs == "bootstrap" else True
        if self.signal == "alpha" and interval:
            options["bootstrap"] = BOOTSTRAP
        inventory = Inventory(listed.source, [layers[name] for name in names], [])
        return self._from_details(analyze(inventory, progress=False, n_jobs=1, **options).details, names)

    def read_capture(self, capture: Capture, names: Sequence[str]) -> pd.DataFrame:
        """Take the layers' signal from a capture of the weights; raise InputError if it is not there."""
        watched = {row["name"] for row in capture.rows if row.get("quantity", WEIGHTS) == WEIGHTS}
        if not watched.issuperset(names):
            unknown = next(name for name in names if name not in watched)
            raise InputError(f"the Monitor does not watch the weights of {unknown!r}: leave the layer out with skip=")
        if isinstance(self.signal, TailAlpha):
            return _table({name: self.signal.reading(capture.spectra.get((WEIGHTS, name))) for name in names})
        details = rows_frame([capture])
        details = details[details["quantity"] == WEIGHTS]
        if self._column is not None and self._column.needs and details[self._column.name].isna().all():
            raise InputError(
                f"the Monitor captured no {self._column.name}, which needs {self._column.needs}=: make the Monitor with it, or "
                "pass the model in place of the Monitor"
            )
        return self._from_details(details, names)

    def _from_details(self, details: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        details = details.set_index(details["name"].astype(str))
        if callable(self.signal) and not isinstance(self.signal, TailAlpha):
            value = self.signal(details)
            if not isinstance(value, pd.Series):
                raise TypeError(f"expected signal(details) to return a pandas Series, got {type(value).__name__}")
            unknown = [name for name in names if name not in value.index]
            if unknown:
                raise InputError(f"signal(details) returned nothing for {unknown[0]!r}: keep the index of details")
            low = high = value
        else:
            value = details[self.signal]
            low, high = _interval(details, str(self.signal))
        found = pd.DataFrame({"value": value, "low": low, "high": high}).astype("float64")
        return found.reindex(list(names)).replace([np.inf, -np.inf], np.nan)


def _interval(details: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    """Return the ends of the 95 % interval of a column: alpha's own, that of noise for its excess, and none for others."""
    value = details[column]
    if column == "alpha":
        half = NORMAL_975 * details["sigma"]
        low, high = (details[name] if name in details else value * np.nan for name in ("alpha_low", "alpha_high"))
        return low.fillna(value - half), high.fillna(value + half)
    half = NORMAL_975 if column == "alpha_excess" else 0.0  # alpha_excess is in units of the spread of noise
    return value - half, value + half


def _spectrum(layer: Layer) -> Spectrum | None:
    """Return the spectrum of a layer, or None if its weight has none, because it is not finite for instance."""
    try:
        return Spectrum.from_weight(layer.load())
    except InputError:
        return None


def _table(readings: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(readings, orient="index", columns=["value", "low", "high"], dtype="float64")
    return table.replace([np.inf, -np.inf], np.nan)


def held_signal(held: np.ndarray, reading: pd.DataFrame, dead_band: float) -> np.ndarray:
    """Return the signal to act on: a layer keeps the one it had unless that lies outside the interval of the new one.

    ``dead_band`` scales the interval; 0 takes every new signal. A layer whose signal is missing now has none.
    """
    value, low, high = (reading[name].to_numpy() for name in ("value", "low", "high"))
    stays = (held >= value - dead_band * (value - low)) & (held <= value + dead_band * (high - value))
    return np.where(stays, held, value)
