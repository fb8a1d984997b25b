"""The noise bulk of a spectrum, and the spikes above it."""

import numpy as np
from matplotlib.figure import Figure

from htsr.bulk import MarchenkoPasturFit
from htsr.plots.style import BLUE, GREY, VERMILION, new_figure
from htsr.spectra.spectrum import Spectrum
from htsr.text import plotted


def plot_bulk(spectrum: Spectrum, bulk: MarchenkoPasturFit, *, title: str = "") -> Figure:
    """Draw the density of the singular values with the Marchenko-Pastur law fitted to the bulk.

    The axis shows singular values, not eigenvalues: their density under the law is bounded for a square matrix, too. Spikes
    beyond twice the noise edge are counted at the margin; drawn to scale they would squeeze the bulk into a corner.

    Args:
        spectrum: The spectrum.
        bulk: The bulk fitted to it.
        title: The layer's name.

    Returns:
        The figure.
    """
    values = np.sqrt(spectrum.eigenvalues)
    threshold = np.sqrt(bulk.spike_threshold)
    right = min(max(values[-1], threshold), 2 * np.sqrt(bulk.edge_high)) * 1.02
    shown = values[values <= right]
    figure, axes = new_figure(1, 1, width=6.4, height=3.6)
    ax = axes[0, 0]
    edges = np.linspace(0, right, int(np.clip(2 * np.sqrt(len(values)), 10, 80)) + 1)
    counts, _ = np.histogram(shown, bins=edges)
    ax.stairs(counts / np.diff(edges) / len(values), edges, fill=True, color=BLUE, alpha=0.35, linewidth=0, label="ESD")
    x = np.linspace(max(np.sqrt(bulk.edge_low), right / 2000), np.sqrt(bulk.edge_high), 400)
    share = 1 - bulk.num_spikes / len(values)
    ax.plot(x, 2 * x * share * bulk.density(x**2), color=VERMILION, linewidth=1.6, label="noise (Marchenko-Pastur)")
    ax.axvline(threshold, color=GREY, linewidth=1.2, linestyle=":", label="99 % of noise ends here")
    ax.plot(values[values > threshold], np.zeros(bulk.num_spikes), "|", color=GREY, markersize=9, clip_on=True)
    beyond = len(values) - len(shown)
    if beyond:
        ax.text(0.99, 0.5, f"{beyond} more \u2192", transform=ax.transAxes, ha="right", fontsize=8, color=GREY)
    ax.set_xlim(0, right)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("singular value", fontsize=9)
    ax.set_ylabel("density", fontsize=9)
    spikes = f"{bulk.num_spikes} spike{'' if bulk.num_spikes == 1 else 's'}"
    ax.set_title(
        f"{plotted(title)}\nsigma {bulk.sigma:.3g}, {spikes}, soft rank {bulk.softrank:.2g}".strip(),
        fontsize=10,
        loc="left",
    )
    ax.legend(fontsize=8, frameon=False)
    return figure
