"""Logarithmic axes on which two ticks or more have a label, however few decades the axis spans."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, Locator, LogLocator, MaxNLocator, NullFormatter

MOST, LEAST = 8, 2
# An axis of more decades has ticks at powers of ten alone.
FEW_DECADES = 2.5


class LogTicks(Locator):
    """Ticks at powers of ten, at 1, 2, 5, 10, ..., or at round numbers: the most that fit beside each other."""

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis."""
        assert self.axis is not None
        low, high = self.axis.get_view_interval()
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks between two values."""
        low, high = sorted((vmin, vmax))
        if not 0 < low < high < math.inf:
            return []
        space = MOST if self.axis is None else 0.75 * self.axis.get_tick_space()
        most = int(np.clip(space, LEAST, MOST))
        for ticks in self._finest_first(low, high):
            shown = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
            if LEAST <= len(shown) <= most:
                return list(shown)
        round_numbers = MaxNLocator(nbins=max(most - 1, 1), min_n_ticks=LEAST).tick_values(low, high)
        return [tick for tick in round_numbers if low <= tick <= high]

    @staticmethod
    def _finest_first(low: float, high: float) -> Sequence[np.ndarray]:
        """Return sets of ticks, the densest first."""
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        powers = np.arange(first, last + 1)
        few = math.log10(high) - math.log10(low) < FEW_DECADES
        sets = [np.outer(10.0**powers, steps).ravel() for steps in ((1, 2, 5), (1, 3)) if few]
        sets += [10.0 ** powers[powers % stride == 0] for stride in (1, 2, 3, 5, 10, 20)]
        return sets


class LogLabels(Formatter):
    """Plain numbers if all lie between a thousandth and ten thousand, else powers of ten; enough digits to tell ticks apart."""

    _ticks: Sequence[float] = ()

    def set_locs(self, locs: Sequence[float]) -> None:
        """Take notice of all ticks that will have a label."""
        self._ticks = [tick for tick in locs if tick > 0]

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of a tick."""
        if x <= 0:
            return ""
        digits = self._digits()
        ticks = self._ticks or [x]
        if 0.999e-3 < min(ticks) and max(ticks) < 1.001e4:
            return f"{x:.{digits}g}" if digits > 4 or x < 1e4 else f"{x:.0f}"
        exponent = math.floor(math.log10(x) + 1e-9)
        factor = x / 10.0**exponent
        power = f"10^{{{exponent}}}"
        return f"${power}$" if abs(factor - 1) < 1e-6 else f"${factor:.{digits}g}\\cdot{power}$"

    def _digits(self) -> int:
        """Return how many digits tell the ticks apart."""
        ticks = np.sort(np.asarray(self._ticks, dtype=float))
        if len(ticks) < 2:
            return 4
        step = float(np.min(np.diff(ticks) / ticks[1:]))
        return int(np.clip(math.ceil(-math.log10(max(step, 1e-12))) + 1, 4, 12))


def log_axis(ax: Axes, *which: Literal["x", "y"]) -> None:
    """Make the x or y axis, or both, logarithmic, with labels at two ticks or more."""
    for name in which:
        getattr(ax, f"set_{name}scale")("log")
        axis = getattr(ax, f"{name}axis")
        axis.set_major_locator(LogTicks())
        axis.set_major_formatter(LogLabels())
        axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10)), numticks=8))
        axis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis=name, which="minor", length=2)
