"""The choice of the tail: D and alpha of every candidate for xmin."""

import numpy as np

from htsr.plots.style import BLUE, GREY, VERMILION, ManyAxes, axes_for, label_axes, make_room, put_title
from htsr.plots.ticks import log_axis
from htsr.tails import PowerLawFit

# Tails of 2 to 4 values have extreme alphas that would flatten the rest.
MIN_TAIL = 5


def shown_scan(fit: PowerLawFit, points: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return xmin, alpha and D of the candidates that are worth drawing, the chosen one among them.

    Args:
        fit: A fit that succeeded.
        points: As in ``PowerLawFit.scan``.

    Returns:
        Three arrays of one length, without the last candidates, whose tails are shorter than five values.

    Raises:
        ValueError: If the fit failed.
    """
    found = fit.scan(points)
    tails = len(fit.values) - np.searchsorted(fit.values, found[0])
    kept = (tails >= MIN_TAIL) | (found[0] <= fit.xmin)
    return found[0][kept], found[1][kept], found[2][kept]


def plot_xmin_scan(fit: PowerLawFit, *, title: str = "", ax: ManyAxes | None = None) -> np.ndarray:
    """Draw D and alpha against xmin, with the xmin that was chosen.

    In a deep, narrow valley the data determine where the tail starts. In a flat valley it could as well start elsewhere, and
    alpha could be any of the values along it.

    Args:
        fit: A fit that succeeded.
        title: The layer's name.
        ax: Two axes, for D and for alpha; a figure of its own by default.

    Returns:
        The two axes.

    Raises:
        ValueError: If the fit failed, or ``ax`` holds fewer than two axes.
    """
    xmins, alphas, distances = shown_scan(fit)
    axes = axes_for(ax, 2, 1, width=6, height=5, sharex=True)[:, 0]
    for one, values, chosen, label in zip(axes, (distances, alphas), (fit.D, fit.alpha), ("D", "alpha"), strict=True):
        one.plot(xmins, values, color=BLUE, linewidth=1.2)
        one.axvline(fit.xmin, color=VERMILION, linestyle="--", linewidth=0.9)
        one.plot([fit.xmin], [chosen], "o", color=VERMILION, markersize=5)
        label_axes(one, y=label)
        log_axis(one, "x")
    axes[1].axhline(fit.alpha, color=GREY, linewidth=0.8, linestyle=":")
    label_axes(axes[1], x="xmin")
    put_title(axes[0], title, f"alpha {fit.alpha:.2f} at xmin {fit.xmin:.4g}")
    make_room(axes[0])
    return axes
