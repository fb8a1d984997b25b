"""Pictures of results. Each takes ``ax=`` and returns the axes it drew on; none computes a metric.

The numbers behind a picture come from a function beside it that returns them, such as ``depth_table`` for ``plot_depth``.
"""

from htsr.plots.models.change import changed_layers, plot_change, plot_esd_of_change
from htsr.plots.models.depth import depth_table, plot_depth
from htsr.plots.models.esds import plot_esds
from htsr.plots.models.histogram import histogram_of_layers, plot_histogram
from htsr.plots.models.phases import phase_grid, plot_phases
from htsr.plots.models.places import places
from htsr.plots.models.widths import plot_widths
from htsr.plots.runs.curves import curves
from htsr.plots.runs.layers import layers_over_steps, plot_heat_map, plot_layers_over_steps
from htsr.plots.runs.means import plot_means_against
from htsr.plots.runs.multipliers import plot_multipliers
from htsr.plots.runs.overlap import plot_overlap, subspace_overlaps
from htsr.plots.runs.power import last_values, plot_against, plot_against_power, plot_esd_against
from htsr.plots.runs.several import plot_runs_over_steps, plot_scalars
from htsr.plots.runs.spectra import plot_esd_over_steps, plot_ridgeline, ridges
from htsr.plots.runs.updates import plot_update_spectrum, singular_values
from htsr.plots.spectra.bulk import plot_bulk
from htsr.plots.spectra.esd import plot_esd
from htsr.plots.spectra.hill import hill_curve, plot_hill
from htsr.plots.spectra.tail import plot_ccdf, plot_qq, tail_ranks
from htsr.plots.spectra.xmin import plot_xmin_scan
from htsr.plots.style import figure_of

__all__ = [  # noqa: RUF022 - grouped by what is drawn
    # one spectrum
    "plot_bulk",
    "plot_ccdf",
    "plot_esd",
    "plot_hill",
    "plot_qq",
    "plot_xmin_scan",
    # all layers of a model, or of a comparison
    "plot_change",
    "plot_depth",
    "plot_esd_of_change",
    "plot_esds",
    "plot_histogram",
    "plot_phases",
    "plot_widths",
    # training runs
    "plot_against",
    "plot_against_power",
    "plot_esd_against",
    "plot_esd_over_steps",
    "plot_heat_map",
    "plot_means_against",
    "plot_layers_over_steps",
    "plot_multipliers",
    "plot_overlap",
    "plot_ridgeline",
    "plot_runs_over_steps",
    "plot_scalars",
    "plot_update_spectrum",
    # the figure of what any of them returns, and the numbers behind the pictures
    "figure_of",
    "changed_layers",
    "curves",
    "depth_table",
    "hill_curve",
    "histogram_of_layers",
    "last_values",
    "layers_over_steps",
    "phase_grid",
    "places",
    "ridges",
    "singular_values",
    "subspace_overlaps",
    "tail_ranks",
]
