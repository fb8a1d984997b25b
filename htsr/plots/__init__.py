"""Figures of results; they draw what was computed and compute no metric themselves."""

from htsr.plots.bulk import plot_bulk
from htsr.plots.change import plot_change, plot_esd_of_change
from htsr.plots.depth import plot_depth
from htsr.plots.esd import plot_esd, plot_esd_over_steps, plot_esds
from htsr.plots.over_steps import plot_layers_over_steps, plot_runs_over_steps, plot_scalars
from htsr.plots.power import plot_against_power
from htsr.plots.xmin import plot_xmin_scan

__all__ = [
    "plot_against_power",
    "plot_bulk",
    "plot_change",
    "plot_depth",
    "plot_esd",
    "plot_esd_of_change",
    "plot_esd_over_steps",
    "plot_esds",
    "plot_layers_over_steps",
    "plot_runs_over_steps",
    "plot_scalars",
    "plot_xmin_scan",
]
