"""How sure a fit is: resamples of a spectrum, refitted with xmin chosen anew each time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from htsr.tails.xmin_scan import Tail

# Finds the tail of a sample, ascending; None if there is none. The choice of xmin is part of it.
Select = Callable[[np.ndarray], Tail | None]


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


class Refits(NamedTuple):
    """Fits of resamples, one row each; resamples without a tail are left out.

    Attributes:
        alpha: Exponents.
        xmin: Starts of the tails.
        D: KS distances.
        n_tail: Sizes of the tails.
    """

    alpha: np.ndarray
    xmin: np.ndarray
    D: np.ndarray
    n_tail: np.ndarray


def refit_resamples(x: np.ndarray, xmin: float, alpha: float, select: Select, n_boot: int, seed: int) -> Refits:
    """Fit semiparametric resamples (Clauset et al. 2009, section 4.1).

    Each of the n values of a resample is, with probability n_tail / n, a draw from the fitted power law, and otherwise one
    of the values below xmin, drawn with replacement. xmin and alpha are then chosen anew.

    Args:
        x: The values, positive, ascending, shape ``(n,)``.
        xmin: Where the fitted tail starts.
        alpha: Its exponent.
        select: Fits a resample.
        n_boot: Number of resamples.
        seed: Seed.

    Returns:
        The refits.
    """
    rng = np.random.default_rng(seed)
    n = len(x)
    body = x[x < xmin]
    rows = []
    for _ in range(n_boot):
        n_tail = rng.binomial(n, 1 - len(body) / n)
        tail = xmin * (1 - rng.random(n_tail)) ** (-1 / (alpha - 1))
        sample = np.concatenate([body[rng.integers(len(body), size=n - n_tail)], tail]) if len(body) else tail
        sample.sort()
        found = select(sample)
        if found is not None:
            rows.append((found.alpha, sample[found.start], found.D, n - found.start))
    return Refits(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def studentized_interval(alpha: float, n_tail: int, refits: Refits, level: float) -> Interval:
    """Symmetric bootstrap-t interval for alpha, on the scale of log(alpha - 1).

    On that scale the standard error for a given xmin is ``1 / sqrt(n_tail)``, whatever alpha is, and
    ``t = |log(alpha* - 1) - log(alpha - 1)| sqrt(n_tail*)`` is close to pivotal; its quantile over the resamples, in which
    xmin was chosen anew, takes the place of 1.96.

    Args:
        alpha: The estimate.
        n_tail: Size of its tail.
        refits: Fits of resamples.
        level: Nominal coverage.

    Returns:
        The interval.

    Notes:
        Kept because it measured best: see ``benchmarks/tail_accuracy.py``, which also has the percentile, basic and normal
        intervals, from these resamples and from plain ones.
    """
    t = np.abs(np.log(refits.alpha - 1) - np.log(alpha - 1)) * np.sqrt(refits.n_tail)
    factor = np.exp(np.quantile(t, level) / np.sqrt(n_tail))
    return Interval(float(1 + (alpha - 1) / factor), float(1 + (alpha - 1) * factor))
