"""The choice of the tail: D and alpha of every candidate for xmin."""

import numpy as np

from htsr.plots.style import BLUE, GREY, VERMILION, ManyAxes, axes_for, label_axes, make_room, put_title
from htsr.plots.ticks import log_axis
from htsr.tails import PowerLawFit

# The last candidates, with tails of 2 to 4 values, have extreme alphas that would flatten the rest.
LEFT_OUT = 3


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
    if fit.status == "failed":
        raise ValueError(f"there is no scan to draw: {fit.reason}")
    xmins, alphas, distances = (values[:-LEFT_OUT] for values in fit.scan())
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
