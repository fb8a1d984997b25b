"""Maps from a signal to multipliers, one for each layer, before their mean is held."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Map = Callable[[np.ndarray], ArrayLike]
Mean = Literal["arithmetic", "geometric"]


@dataclass(frozen=True)
class Linear:
    """Straight line from the smallest signal, which gets ``low``, to the largest, which gets ``high``.

    Args:
        low: Multiplier of the layer with the smallest signal.
        high: Multiplier of the layer with the largest signal; less than ``low`` turns the order round.

    Raises:
        ValueError: If one of them is negative or not finite.

    Notes:
        This is the ``tb_linear_map`` of TempBalance. It does not know how much the layers differ: the extremes get ``low`` and
        ``high`` whether alpha spreads over 3 or over 0.003. Where all signals are equal, it returns 1, and the published code
        divides by zero or returns ``low``.

    Example:
        >>> Linear(0.5, 1.5)([2.0, 3.0, 4.0])
        array([0.5, 1. , 1.5])
    """

    low: float = 0.5
    high: float = 1.5

    def __post_init__(self) -> None:
        _refuse_bad_ends(self.low, self.high)

    def __call__(self, signal: ArrayLike) -> np.ndarray:
        """Return the multipliers of the layers."""
        x = np.asarray(signal, dtype=np.float64)
        least, most = (x.min(), x.max()) if len(x) else (0.0, 0.0)
        return np.ones(len(x)) if most == least else np.interp(x, (least, most), (self.low, self.high))


@dataclass(frozen=True)
class Sigmoid:
    """Sigmoid in the logarithm, centred at the mean signal: ``10 ** (strength * (sigmoid(slope * (x - mean)) - 1/2))``.

    Args:
        strength: Decades between the least and the greatest multiplier that can come out.
        slope: How steep the sigmoid is.
        strength_low: Another strength for signals below the mean; the same by default.

    Raises:
        ValueError: If one of them is not finite.

    Notes:
        This is TB-Sigmoid of Model Balancing (arXiv 2410.12178). Half of ``strength`` lies on either side of 1, so the geometric
        mean is near 1, though not exactly there unless the signals lie symmetrically around their mean.

    Example:
        >>> Sigmoid(strength=2, slope=1)([3.0, 3.0])
        array([1., 1.])
    """

    strength: float = 1.0
    slope: float = 10.0
    strength_low: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.strength, self.slope, self.strength if self.strength_low is None else self.strength_low]
        if not np.isfinite(numbers).all():
            raise ValueError(f"expected finite strengths and a finite slope, got {self}")

    def __call__(self, signal: ArrayLike) -> np.ndarray:
        """Return the multipliers of the layers."""
        x = np.asarray(signal, dtype=np.float64)
        if not len(x) or x.min() == x.max():  # the mean of equal numbers may differ from them in the last digit
            return np.ones(len(x))
        distance = x - x.mean()
        strength_low = self.strength if self.strength_low is None else self.strength_low
        strength = np.where(distance > 0, self.strength, strength_low)
        return 10 ** (strength * np.tanh(self.slope * distance / 2) / 2)  # sigmoid(t) - 1/2 is tanh(t / 2) / 2


@dataclass(frozen=True)
class Step:
    """Equal steps by rank: of n layers, the one with the r-th smallest signal (r = 0, 1, ...) gets ``low + (high - low) r / n``.

    Args:
        low: Multiplier of the layer with the smallest signal.
        high: Upper end, which no layer reaches.

    Raises:
        ValueError: If one of them is negative or not finite.

    Notes:
        This is the ``tb_step`` of TempBalance, which divides by n rather than n - 1, so that its mean lies below the middle.
        Layers with equal signals get different steps there, by their order; here they share the mean of their steps, so that
        equal signals all get one multiplier.

    Example:
        >>> Step(0.5, 1.5)([4.0, 2.0])
        array([1. , 0.5])
    """

    low: float = 0.5
    high: float = 1.5

    def __post_init__(self) -> None:
        _refuse_bad_ends(self.low, self.high)

    def __call__(self, signal: ArrayLike) -> np.ndarray:
        """Return the multipliers of the layers."""
        x = np.asarray(signal, dtype=np.float64)
        if not len(x) or x.min() == x.max():
            return np.ones(len(x))
        _, place, count = np.unique(x, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(count) - count + (count - 1) / 2)[place]
        return self.low + (self.high - self.low) * ranks / len(x)


def with_mean_one(multipliers: ArrayLike, mean: Mean | None) -> np.ndarray:
    """Divide multipliers by their mean, so that steering moves a setting between layers and leaves its mean alone.

    Args:
        multipliers: One a layer. Each layer counts once, whatever its number of parameters.
        mean: ``"arithmetic"``, ``"geometric"``, or None to leave them as they are, as the presets do.

    Returns:
        The multipliers.

    Raises:
        ValueError: If the mean is unknown, or is zero.

    Example:
        >>> with_mean_one([0.5, 1.0, 3.0], "arithmetic").mean()
        np.float64(1.0)
    """
    check_mean(mean)
    values = np.asarray(multipliers, dtype=np.float64)
    if mean is None or not len(values):
        return values
    if not (values > 0).all() and (mean == "geometric" or not values.mean() > 0):
        raise ValueError(f"expected positive multipliers, whose {mean} mean can be held at 1, got {values}")
    return values / (values.mean() if mean == "arithmetic" else np.exp(np.log(values).mean()))


def check_mean(mean: object) -> None:
    """Raise ValueError unless this is a mean that can be held, or None."""
    if mean not in ("arithmetic", "geometric", None):
        raise ValueError(f"expected mean to be arithmetic, geometric or None, got {mean!r}")


def _refuse_bad_ends(low: float, high: float) -> None:
    if not (np.isfinite([low, high]).all() and min(low, high) >= 0):
        raise ValueError(f"expected finite multipliers >= 0 as low and high, got {low} and {high}")
