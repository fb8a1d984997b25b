"""WeightWatcher's other ways to fit the power law: with fingers fixed, and with the largest eigenvalues left out."""

from dataclasses import replace
from typing import Any

import numpy as np

from htsr.audit import cells
from htsr.audit.analysis import Analysis
from htsr.audit.layer import WEIGHTWATCHER_CUTOFF, LayerAnalysis
from htsr.compat.arguments import Options
from htsr.spectra.spectrum import Spectrum
from htsr.tails import PowerLawFit, fit_power_law
from htsr.tails.xmin_rules import PEAK_BINS, PEAK_HIGH, PEAK_LOW

# WeightWatcher stops to clip once alpha is this small, and clips at most this many if there are twice as many eigenvalues.
MIN_ALPHA, MAX_FINGERS = 2.0, 10
# The cells of a row that follow from its fit.
OF_FIT = ("alpha", "D", "sigma", "xmin", "xmax", "num_pl_spikes", "alpha_weighted", "log_alpha_norm", "ERG_gap")


def refitted(analysis: Analysis, options: Options) -> tuple[Analysis, dict[str, dict[str, Any]]]:
    """Return the analysis with the fits that the options ask for, and the cells that they add to each row by name."""
    if not options.refits:
        return analysis, {}
    results, added = {}, {}
    for layer in analysis:
        fit, extra = (layer.fit, {}) if layer.spectrum is None else _fit(layer.spectrum, options)
        if layer.spectrum is None:
            results[layer.name] = layer
        else:
            results[layer.name] = _with_fit(layer, layer.spectrum, fit, fingers=bool(options.fix_fingers))
        if options.fix_fingers == "clip_xmax":
            added[layer.name] = {"num_fingers": 0, "raw_alpha": float("nan")} | extra
    return Analysis(analysis.about, analysis.skipped, results), added


def _with_fit(layer: LayerAnalysis, spectrum: Spectrum, fit: PowerLawFit, *, fingers: bool) -> LayerAnalysis:
    """Return an analysis of a layer with another fit, and with the cells that follow from it."""
    row = layer.row | dict.fromkeys(OF_FIT, float("nan")) | {"warning": "", "status": fit.status, "reason": fit.reason}
    if fit.status == "success":
        row |= cells.tail_cells(spectrum, fit)
        if fingers:  # which WeightWatcher counts
            row["num_pl_spikes"] = int((spectrum.eigenvalues >= fit.xmin).sum())
    return replace(layer, fit=fit, row=row)


def _fit(spectrum: Spectrum, options: Options) -> tuple[PowerLawFit, dict[str, Any]]:
    """Return the fit of a spectrum, and the cells that it adds."""
    evals = spectrum.eigenvalues[spectrum.eigenvalues > WEIGHTWATCHER_CUTOFF]
    if options.fix_fingers == "clip_xmax":
        return _clipped(evals, options)
    if options.fix_fingers == "xmin_peak":
        return _at_peak(evals, options.xmin_max), {}
    if options.xmax == "force":
        return fit_power_law(evals, xmax="max"), {}
    left_out = abs(int(options.xmax or 0))
    if left_out > len(spectrum) / 2:
        return PowerLawFit.failed(f"xmax={options.xmax} leaves out more than half of {len(spectrum)} eigenvalues"), {}
    return fit_power_law(evals, xmax=left_out), {}


def _at_peak(evals: np.ndarray, xmin_max: float | None) -> PowerLawFit:
    """Return the fit whose xmin lies near the peak of the spectrum.

    As in WeightWatcher, the lower bound is a logarithm. powerlaw, which it needs for this, leaves the last candidate out.
    """
    free = fit_power_law(evals)
    if free.status == "failed":
        return free
    xmins, _, D = free.scan()
    counts, edges = np.histogram(np.log10(evals), bins=PEAK_BINS)
    peak = 10 ** edges[np.argmax(counts)]
    inside = (xmins >= np.log10(PEAK_LOW * peak)) & (xmins <= (PEAK_HIGH * peak if xmin_max is None else xmin_max))
    near = np.flatnonzero(inside)[:-1]
    if not len(near):
        return PowerLawFit.failed(f"fewer than two eigenvalues near the peak at {peak:.4g}")
    return fit_power_law(evals, xmin=float(xmins[near[np.argmin(D[near])]]))


def _clipped(evals: np.ndarray, options: Options) -> tuple[PowerLawFit, dict[str, Any]]:
    """Return the fit without the fewest of the largest eigenvalues that lower alpha by more than the threshold.

    WeightWatcher first leaves out two and calls that one finger.
    """
    raw = fit_power_law(evals)
    limit = options.max_fingers
    for left_out in range(2, MAX_FINGERS if limit is None or limit < len(evals) / 2 else limit):
        fit = fit_power_law(evals, xmax=left_out)
        if fit.alpha + options.finger_thresh < raw.alpha:
            return fit, {"num_fingers": left_out - 1, "raw_alpha": raw.alpha}
        if fit.alpha <= MIN_ALPHA:
            break
    return raw, {"num_fingers": 0, "raw_alpha": raw.alpha}
