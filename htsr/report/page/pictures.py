"""The numbers behind the pictures of one layer, few enough that a page can hold them for thousands of layers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from htsr.plots.spectra.density import bulk_density, log_histogram
from htsr.plots.spectra.tail import tail_ranks
from htsr.plots.spectra.xmin import LEFT_OUT

if TYPE_CHECKING:
    from htsr.audit.layer import LayerAnalysis
    from htsr.bulk import MarchenkoPasturFit
    from htsr.comparison.layer import LayerComparison
    from htsr.tails import PowerLawFit

Picture = dict[str, Any]
# Points of a curve, and of a curve in a page of many layers.
POINTS, FEW_POINTS, MANY_LAYERS = 60, 24, 500
# Significant digits of a number that is only drawn.
DIGITS = 4


def points_for(layers: int) -> int:
    """Return how many points a curve has in a page of so many layers."""
    return POINTS if layers <= MANY_LAYERS else FEW_POINTS


def picture_of_layer(layer: "LayerAnalysis", points: int = POINTS) -> Picture | None:
    """Return what the pictures of a layer draw: ESD, noise law, edges, scan of xmin and QQ plot; None without a spectrum."""
    if layer.spectrum is None:
        return None
    picture: Picture = {"esd": esd(layer.spectrum.eigenvalues)}
    if picture["esd"] is None:
        return None
    n = int((layer.spectrum.eigenvalues > 0).sum())
    if layer.shuffled is not None:
        picture["shuffled"] = esd(layer.shuffled.eigenvalues)
    if layer.bulk is not None:
        _, density = log_histogram(np.sort(layer.spectrum.eigenvalues[layer.spectrum.eigenvalues > 0]))
        picture |= _of_bulk(layer.bulk, n, points, least=float(np.nanmin(density)) / 2)
    if layer.fit.status == "success":
        picture |= _of_fit(layer.fit, n, points)
    return picture


def picture_of_change(layer: "LayerComparison") -> Picture | None:
    """Return what the picture of a compared layer draws: the ESDs of A, of B and of the change; None without any."""
    sides: Picture = {}
    for side, of in (("a", layer.a), ("b", layer.b), ("delta", layer.delta)):
        if of.spectrum is not None and (drawn := esd(of.spectrum.eigenvalues)) is not None:
            n = int((of.spectrum.eigenvalues > 0).sum())
            sides[side] = {"esd": drawn} | (_law(of.fit, n) if of.fit.status == "success" else {})
    return sides or None


def esd(eigenvalues: np.ndarray) -> Picture | None:
    """Return the histogram that ``plot_esd`` draws on log-log axes: ends in log10, counts, and the number of all values."""
    evals = np.sort(eigenvalues[eigenvalues > 0])
    if not len(evals):
        return None
    edges, density = log_histogram(evals)
    counts = np.rint(np.nan_to_num(density) * np.diff(edges) * len(evals))
    return {"ends": numbers(np.log10(edges[[0, -1]]), 7), "counts": counts.astype(int).tolist(), "n": len(evals)}


def numbers(values: Iterable[float], digits: int = DIGITS) -> list[float | None]:
    """Return numbers with few digits, None for those that are not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


def _of_bulk(bulk: "MarchenkoPasturFit", n: int, points: int, least: float) -> Picture:
    """Return the law of the noise where its density is above the least that is drawn, its edge, the threshold of its spikes."""
    x, density = bulk_density(bulk, n)
    some = np.linspace(0, len(x) - 1, points).astype(int)
    return {
        "law": [numbers(x[some]), numbers(np.where(density > least, density, np.nan)[some])],
        "edge": float(bulk.edge_high),
        "spikes": int(bulk.num_spikes),
        "threshold": float(bulk.spike_threshold),
    }


def _law(fit: "PowerLawFit", n: int) -> Picture:
    """Return the power law of a tail among n values."""
    ends = np.array([fit.xmin, fit.xmax])
    density = fit.n_tail / n * (fit.alpha - 1) / fit.xmin * (ends / fit.xmin) ** -fit.alpha
    line = [numbers(ends), numbers(density)]
    return {"fit": {"alpha": fit.alpha, "D": fit.D, "xmin": fit.xmin, "tail": fit.n_tail, "line": line}}


def _of_fit(fit: "PowerLawFit", n: int, points: int) -> Picture:
    """Return the fitted law, D and alpha of candidates for xmin, and the tail beside the quantiles of the law."""
    xmin, alpha, distance = (values[:-LEFT_OUT] for values in fit.scan(points))
    ranks = tail_ranks(fit, points=points)
    return _law(fit, n) | {
        "scan": [numbers(xmin), numbers(alpha), numbers(distance)],
        "qq": [numbers(of) for of in (ranks.expected, ranks.values, ranks.low, ranks.high)],
    }
