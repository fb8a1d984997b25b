"""A closed loop on the power: alpha above its target raises p, alpha below lowers it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class TargetAlpha:
    """Moves HTMuon's power p until alpha comes to a target, as ``map=`` of a ``LayerwiseSchedule(setting="power")``.

    At each reading ``p`` becomes ``p + gain * (alpha - target)``, within ``low`` and ``high``. A larger p makes the spectrum of
    the update heavier-tailed, and in time that of the weight, so alpha falls.

    Args:
        target: The alpha to come to.
        gain: Change of p at a reading for each unit that alpha lies above the target.
        low: The least p.
        high: The greatest p.
        per: ``"layer"`` moves the p of each layer by the layer's own alpha, ``"model"`` moves one p by the median alpha.

    Raises:
        ValueError: If the target is not above 1, the gain is not positive, or ``low`` is above ``high``.

    Notes:
        This is an integral controller, and htsr's own: nobody published one. The gain of 0.02 was chosen here, not tuned: an
        alpha that stays 1 too high moves p from 0 to 1/8 in six readings. The bounds are those of the powers that were published
        for pre-training, -1/4 and 1/2. Whether a target is worth coming to is another question: that alpha falls does not say
        that the loss does. At a bound p stops, and leaves it as soon as alpha asks for it.

        In the arms ``"shuffled"`` and ``"inverted"`` each layer's loop still follows the layer's own alpha, but another
        layer gets its p.

    Example:
        >>> TargetAlpha(3.5)(power=[0.0, 0.0], alpha=[4.5, 2.5])
        array([ 0.02, -0.02])
    """

    target: float
    gain: float = 0.02
    low: float = -0.25
    high: float = 0.5
    per: Literal["layer", "model"] = "layer"

    def __post_init__(self) -> None:
        if not self.target > 1:
            raise ValueError(f"expected a target alpha above 1, got {self.target}")
        if not 0 < self.gain < np.inf:
            raise ValueError(f"expected a positive gain, got {self.gain}: alpha falls as p rises")
        if not self.low <= self.high:
            raise ValueError(f"expected low <= high, got {self.low} and {self.high}")
        if self.per not in {"layer", "model"}:
            raise ValueError(f"expected per to be layer or model, got {self.per!r}")

    def __call__(
        self, power: ArrayLike, alpha: ArrayLike, low: ArrayLike | None = None, high: ArrayLike | None = None
    ) -> np.ndarray:
        """Return the next powers.

        Args:
            power: The power of each layer.
            alpha: The alpha of each layer; NaN where there is none, and p then stays.
            low: Lower end of the interval in which each alpha may lie by chance; alpha itself by default.
            high: Upper end of that interval. If the target lies within it, p stays.

        Returns:
            The powers, within the bounds.
        """
        p, value = np.asarray(power, dtype=np.float64), np.asarray(alpha, dtype=np.float64)
        least = value if low is None else np.asarray(low, dtype=np.float64)
        most = value if high is None else np.asarray(high, dtype=np.float64)
        if self.per == "model":
            known = ~np.isnan(value)
            if not known.any():
                return p
            value, least, most = (np.full(len(p), np.median(x[known])) for x in (value, least, most))
        error = np.where((least <= self.target) & (self.target <= most), 0.0, value - self.target)
        return np.clip(p + self.gain * np.nan_to_num(error), self.low, self.high)
