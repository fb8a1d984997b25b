"""The noise bulk of a spectrum, and the spikes above it."""

import numpy as np
from matplotlib.axes import Axes

from htsr.bulk import MarchenkoPasturFit
from htsr.plots.style import GREY, SKY, SMALL, VERMILION, ManyAxes, axes_for, label_axes, put_legend, put_title
from htsr.spectra.spectrum import Spectrum

# Spikes beyond this many noise edges, in singular values, are counted at the margin: to scale they would squeeze the bulk.
EDGES_SHOWN = 2.0


def singular_histogram(spectrum: Spectrum, bulk: MarchenkoPasturFit) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a histogram of the singular values around the bulk, and the density in each bin."""
    values = np.sqrt(spectrum.eigenvalues)
    right = 1.02 * min(max(values[-1], np.sqrt(bulk.spike_threshold)), EDGES_SHOWN * np.sqrt(bulk.edge_high))
    edges = np.linspace(0, right, int(np.clip(2 * np.sqrt(len(values)), 10, 80)) + 1)
    counts, _ = np.histogram(values, bins=edges)
    return edges, counts / np.diff(edges) / len(values)


def singular_law(spectrum: Spectrum, bulk: MarchenkoPasturFit) -> tuple[np.ndarray, np.ndarray]:
    """Return singular values and their density under the law of the bulk."""
    high = np.sqrt(bulk.edge_high)
    x = np.linspace(max(np.sqrt(bulk.edge_low), high / 1000), high, 400)
    return x, 2 * x * (1 - bulk.num_spikes / len(spectrum)) * bulk.density(x**2)


def plot_bulk(
    spectrum: Spectrum, bulk: MarchenkoPasturFit | None, *, title: str = "", ax: ManyAxes | None = None
) -> Axes:
    """Draw the density of the singular values with the Marchenko-Pastur law fitted to the bulk.

    The axis shows singular values, not eigenvalues: their density under the law is bounded for a square matrix, too.

    Args:
        spectrum: The spectrum.
        bulk: The bulk fitted to it. A layer without one, whose ``bulk`` is None, is refused.
        title: The layer's name.
        ax: Where to draw; a figure of its own by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no bulk.
    """
    if bulk is None:
        raise ValueError(
            "expected a fitted bulk, got None: this spectrum has none, or the analysis was made with bulk=False; plot_esd draws "
            "a spectrum without a bulk"
        )
    axes: Axes = axes_for(ax, width=6.4, height=3.6)[0, 0]
    edges, density = singular_histogram(spectrum, bulk)
    axes.stairs(density, edges, fill=True, color=SKY, alpha=0.6, linewidth=0, label="ESD")
    axes.plot(*singular_law(spectrum, bulk), color=VERMILION, linewidth=1.6, label="noise (Marchenko-Pastur)")
    threshold = np.sqrt(bulk.spike_threshold)
    axes.axvline(threshold, color=GREY, linewidth=1.2, linestyle=":", label="99 % of noise ends here")
    values = np.sqrt(spectrum.eigenvalues)
    spikes = values[(values > threshold) & (values <= edges[-1])]
    axes.plot(spikes, np.full(len(spikes), 0.03), "|", color=GREY, markersize=9, transform=axes.get_xaxis_transform())
    beyond = int((values > edges[-1]).sum())
    if beyond:
        axes.text(
            0.99, 0.4, f"{beyond} more $\\rightarrow$", transform=axes.transAxes, ha="right", fontsize=SMALL, color=GREY
        )
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(bottom=0)
    label_axes(axes, "singular value", "density")
    counted = f"{bulk.num_spikes} spike{'' if bulk.num_spikes == 1 else 's'}"
    put_title(axes, title, f"sigma {bulk.sigma:.3g}, {counted}, soft rank {bulk.softrank:.2g}")
    put_legend(axes, own=ax is None)
    return axes
