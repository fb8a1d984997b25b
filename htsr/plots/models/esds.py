"""The ESDs of all layers of a model, in small panels."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from htsr.plots.models.places import by_depth, places
from htsr.plots.spectra.esd import draw_esd
from htsr.plots.style import (
    GREY,
    SKY,
    SMALL,
    VERMILION,
    ManyAxes,
    axes_for,
    figure_of,
    short_names,
)  # fmt: skip
from htsr.text import plotted

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.audit.layer import LayerAnalysis

MAX_PANELS = 60


def plot_esds(analysis: "Analysis", *, ax: ManyAxes | None = None) -> np.ndarray:
    """Draw the ESDs of all layers as small panels, by depth.

    Args:
        analysis: What to draw. Tied layers are drawn once. Of more than 60 layers only the first 60 are drawn, and the
            figure says so.
        ax: As many axes as there are panels; a figure of its own by default.

    Returns:
        The axes, one for each panel.

    Raises:
        ValueError: If no layer has a spectrum, or ``ax`` holds too few axes.
    """
    layers = [layer for layer in analysis if layer.spectrum is not None and not layer.row["tied_to"]]
    if not layers:
        raise ValueError(f"{analysis.source}: no layer has a spectrum to draw")
    found = places([layer.name for layer in layers], [str(layer.row["layer_type"]) for layer in layers])
    shown = [layers[i] for i in by_depth(found)][:MAX_PANELS]
    if ax is None:
        axes = _grid(len(shown), len(layers))
    else:
        axes = axes_for(ax, 1, len(shown), width=1, height=1)[0]
    names = short_names((layer.name for layer in shown), 34)
    for panel, name, layer in zip(axes, names, shown, strict=True):
        assert layer.spectrum is not None
        draw_esd(panel, layer.spectrum, layer.fit, layer.bulk_max)
        panel.set_title(f"{name}\n{_note(layer)}", fontsize=SMALL, loc="left")
        panel.tick_params(labelsize=SMALL - 1)
    return axes


def _grid(panels: int, layers: int) -> np.ndarray:
    """Return the axes of a figure with this many panels."""
    columns = min(4, panels)
    rows = -(-panels // columns)
    # placed by hand, since the automatic layout takes ten seconds for 60 panels
    width, height = max(2.6 * columns, 5.0), 2.1 * rows + 0.4
    axes = axes_for(None, rows, columns, width=width, height=height, layout="none")
    figure = figure_of(axes)
    figure.subplots_adjust(
        left=0.5 / width, right=1 - 0.1 / width, bottom=0.3 / height, top=1 - 0.75 / height, wspace=0.3, hspace=0.5
    )
    for unused in axes.flat[panels:]:
        unused.set_visible(False)
    figure.legend(handles=_key(), loc="upper right", ncols=4, fontsize=SMALL, frameon=False)
    if layers > panels:
        figure.text(0.01, 1 - 0.1 / height, f"first {panels} of {layers}", fontsize=SMALL, va="top")
    return axes.ravel()[:panels]


def _note(layer: "LayerAnalysis") -> str:
    """Return a layer's alpha, or why it has none, short."""
    if layer.fit.status == "failed":
        return plotted(f"no fit: {layer.fit.reason}", 40)
    return f"alpha {layer.fit.alpha:.2f}, {layer.fit.n_tail} of {layer.fit.n}"


def _key() -> list[Artist]:
    """Return what explains the lines of all panels at once."""
    return [
        Patch(color=SKY, alpha=0.6, linewidth=0, label="ESD"),
        Line2D([], [], color=VERMILION, linewidth=1.6, label="power law"),
        Line2D([], [], color=VERMILION, linewidth=0.9, linestyle="--", label="xmin"),
        Line2D([], [], color=GREY, linewidth=1.2, linestyle=":", label="noise edge"),
    ]
