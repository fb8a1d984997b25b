"""The choice of the tail: D and alpha of every candidate for xmin."""

from matplotlib.figure import Figure

from htsr.plots.style import BLUE, GREY, VERMILION, new_figure
from htsr.tails import PowerLawFit
from htsr.text import plotted


def plot_xmin_scan(fit: PowerLawFit, *, title: str = "") -> Figure:
    """Draw D and alpha against xmin, with the xmin that was chosen.

    In a deep, narrow valley the data determine where the tail starts. In a flat valley it could as well start elsewhere, and
    alpha could be any of the values along it.

    Args:
        fit: A fit that succeeded.
        title: The layer's name.

    Returns:
        The figure.

    Raises:
        ValueError: If the fit failed.
    """
    if fit.status == "failed":
        raise ValueError(f"there is no scan to draw: {fit.reason}")
    xmins, alphas, distances = fit.scan()
    few = (
        len(xmins) - 3
    )  # the last candidates, with tails of 2 to 4 values, have extreme alphas that would flatten the rest
    figure, axes = new_figure(2, 1, width=6, height=5, sharex=True)
    for ax, values, label in zip(axes[:, 0], (distances, alphas), ("D", "alpha"), strict=True):
        ax.plot(xmins[:few], values[:few], color=BLUE, linewidth=1.2)
        ax.axvline(fit.xmin, color=VERMILION, linestyle="--", linewidth=0.9)
        ax.set_ylabel(label, fontsize=9)
    axes[0, 0].plot([fit.xmin], [fit.D], "o", color=VERMILION, markersize=5)
    axes[1, 0].plot([fit.xmin], [fit.alpha], "o", color=VERMILION, markersize=5)
    axes[1, 0].axhline(fit.alpha, color=GREY, linewidth=0.6, linestyle=":")
    axes[1, 0].set_xscale("log")
    axes[1, 0].set_xlabel("xmin", fontsize=9)
    axes[0, 0].set_title(
        f"{plotted(title)}\nalpha {fit.alpha:.2f} at xmin {fit.xmin:.4g}".strip(), fontsize=10, loc="left"
    )
    return figure
