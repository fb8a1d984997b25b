"""The numbers behind the pictures of one layer, few enough that a page can hold them for thousands of layers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from htsr.plots.spectra.density import bulk_density, log_histogram, tail_density
from htsr.plots.spectra.tail import tail_ranks
from htsr.plots.spectra.xmin import shown_scan

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
    drawn = None if layer.spectrum is None else esd(layer.spectrum.eigenvalues)
    if drawn is None:
        return None
    picture: Picture = {"esd": drawn}
    n, (low, high) = drawn["n"], drawn["ends"]
    if layer.shuffled is not None:
        picture["shuffled"] = esd(layer.shuffled.eigenvalues)
    if layer.bulk is not None:
        edges = np.logspace(low, high, len(drawn["counts"]) + 1)
        density = np.array(drawn["counts"]) / n / np.diff(edges)
        picture |= _of_bulk(layer.bulk, n, points, least=float(density[density > 0].min()) / 2)
    if layer.fit.status == "success":
        picture |= _of_fit(layer.fit, n, points)
    return picture


def picture_of_change(layer: "LayerComparison") -> Picture | None:
    """Return what the picture of a compared layer draws: the ESDs of A, of B and of the change; None without any."""
    sides: Picture = {}
    for side, of in (("a", layer.a), ("b", layer.b), ("delta", layer.delta)):
        if of.spectrum is not None and (drawn := esd(of.spectrum.eigenvalues)) is not None:
            sides[side] = {"esd": drawn} | (_law(of.fit, drawn["n"]) if of.fit.status == "success" else {})
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


def spread(length: int, points: int) -> np.ndarray:
    """Return at most so many positions that are spread over a length, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, points)).astype(int))


def _of_bulk(bulk: "MarchenkoPasturFit", n: int, points: int, least: float) -> Picture:
    """Return the law of the noise where its density is above the least that is drawn, its edge, the threshold of its spikes."""
    x, density = bulk_density(bulk, n)
    some = spread(len(x), points)
    return {
        "law": [numbers(x[some]), numbers(np.where(density > least, density, np.nan)[some])],
        "edge": float(bulk.edge_high),
        "spikes": int(bulk.num_spikes),
        "threshold": float(bulk.spike_threshold),
    }


def _law(fit: "PowerLawFit", n: int) -> Picture:
    """Return the power law of a tail among n values."""
    line = [numbers(values[[0, -1]]) for values in tail_density(fit, n)]
    return {"fit": {"alpha": fit.alpha, "D": fit.D, "xmin": fit.xmin, "tail": fit.n_tail, "line": line}}


def _of_fit(fit: "PowerLawFit", n: int, points: int) -> Picture:
    """Return the fitted law, D and alpha of candidates for xmin, and the tail beside the quantiles of the law."""
    ranks = tail_ranks(fit, points=points)
    return _law(fit, n) | {
        "scan": [numbers(values) for values in shown_scan(fit, points)],
        "qq": [numbers(of) for of in (ranks.expected, ranks.values, ranks.low, ranks.high)],
    }
