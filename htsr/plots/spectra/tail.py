"""How well a power law fits its tail: the tail's distribution and quantiles beside those of the law."""

from typing import NamedTuple

import numpy as np
import scipy
from matplotlib.axes import Axes

from htsr.plots.spectra.esd import fit_note
from htsr.plots.style import BLUE, GREY, VERMILION, ManyAxes, axes_for, label_axes, put_legend, put_title
from htsr.plots.ticks import log_axis
from htsr.tails import PowerLawFit


class TailRanks(NamedTuple):
    """The values of a tail and what the fitted law expects at each rank; arrays of one length, ascending.

    Attributes:
        values: The values.
        share: Share of the tail at or above each value.
        expected: The law's quantile at each rank.
        low: Lower end of the band that holds ``level`` of the law's draws at this rank.
        high: Upper end of that band.
    """

    values: np.ndarray
    share: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


def tail_ranks(fit: PowerLawFit, level: float = 0.95, points: int | None = None) -> TailRanks:
    """Compare each value of a tail with what draws from the fitted law have at its rank.

    Args:
        fit: A fit that succeeded.
        level: Share of the draws inside the band, at each rank by itself.
        points: Take only this many values, at ranks that are spread evenly in the logarithm, from the largest down.

    Returns:
        The values, their expected places and the band.

    Raises:
        ValueError: If the fit failed.

    Notes:
        The band is that of infinitely many parametric bootstrap samples of n_tail values with alpha and xmin held fixed. It
        needs no draws: the law's distribution function, at the i-th smallest of n values, has a Beta(i, n + 1 - i)
        distribution.
    """
    if fit.status == "failed":
        raise ValueError(f"there is no tail to draw: {fit.reason}")
    n = fit.n_tail
    rank = np.arange(1, n + 1)
    if points is not None and points < n:
        rank = np.unique(n + 1 - np.geomspace(1, n, points).astype(int))
    shares = [scipy.special.betaincinv(rank, n + 1 - rank, q) for q in (0.5, (1 - level) / 2, (1 + level) / 2)]
    expected, low, high = (fit.xmin * np.exp(-np.log1p(-share) / (fit.alpha - 1)) for share in shares)
    return TailRanks(fit.tail[rank - 1], 1 - (rank - 1) / n, expected, low, high)


def plot_ccdf(fit: PowerLawFit, *, title: str = "", ax: ManyAxes | None = None) -> Axes:
    """Draw the share of the tail at or above each value, with the fitted law and the band of its bootstrap.

    A tail that leaves the band bends away from a power law there.

    Args:
        fit: A fit that succeeded.
        title: The layer's name.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the fit failed.
    """
    ranks = tail_ranks(fit)
    axes: Axes = axes_for(ax, width=5, height=3.6)[0, 0]
    axes.fill_betweenx(
        ranks.share, ranks.low, ranks.high, color=GREY, alpha=0.3, linewidth=0, label="95 % of draws from the law"
    )
    share = np.array([1, 0.5 / fit.n_tail])
    axes.plot(
        fit.xmin * share ** (-1 / (fit.alpha - 1)),
        share,
        color=VERMILION,
        linewidth=1.4,
        label=f"alpha {fit.alpha:.2f}",
    )
    axes.plot(ranks.values, ranks.share, "o", color=BLUE, markersize=3, label="tail")
    log_axis(axes, "x", "y")
    label_axes(axes, "eigenvalue $\\lambda$", "share of the tail $\\geq \\lambda$")
    put_title(axes, title, fit_note(fit))
    put_legend(axes, own=ax is None, loc="lower left")
    return axes


def plot_qq(fit: PowerLawFit, *, title: str = "", ax: ManyAxes | None = None) -> Axes:
    """Draw the values of the tail against the quantiles of the fitted law, with the band of its bootstrap.

    Args:
        fit: A fit that succeeded.
        title: The layer's name.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the fit failed.
    """
    ranks = tail_ranks(fit)
    axes: Axes = axes_for(ax, width=4.4, height=4)[0, 0]
    axes.fill_between(
        ranks.expected, ranks.low, ranks.high, color=GREY, alpha=0.3, linewidth=0, label="95 % of draws from the law"
    )
    axes.plot(ranks.expected, ranks.expected, color=VERMILION, linewidth=1.2, label="equal")
    axes.plot(ranks.expected, ranks.values, "o", color=BLUE, markersize=3, label="tail")
    log_axis(axes, "x", "y")
    label_axes(axes, f"quantile of the law, alpha {fit.alpha:.2f}", "eigenvalue")
    put_title(axes, title, fit_note(fit))
    put_legend(axes, own=ax is None, loc="upper left")
    return axes
