"""The cells of a layer's row, a function for each family: what each number of a spectrum is computed from."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from htsr.bulk import MarchenkoPasturFit, NoiseNull, Shuffled, density_distance, noise_null, rand_distance
from htsr.bulk.bbp import bbp_threshold
from htsr.spectra import metrics
from htsr.spectra.spectrum import Spectrum
from htsr.spectra.vectors import localization
from htsr.spectra.windows import window_eigenvalues
from htsr.tails import ALTERNATIVES, PowerLawFit, fit_power_law
from htsr.tails.power_law import XminRule

# WeightWatcher's bounds, from its README: "over-trained" below 2, "under-trained" above 6.
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0

# 5 % of the normal law lie beyond so many deviations, as 5 % of noise lie beyond either end of its band.
NORMAL_95 = 1.645

Cells = dict[str, object]


def spectrum_cells(spectrum: Spectrum) -> Cells:
    """Return the norms, ranks and entropies of the eigenvalues; of a zero matrix only those that are defined."""
    evals = spectrum.eigenvalues
    if evals[-1] == 0:
        return {"spectral_norm": 0.0, "hard_rank": 0, "rank_loss": len(evals), "weak_rank_loss": len(evals)}
    return {
        "log_norm": metrics.log_norm(evals),
        "log_spectral_norm": metrics.log_spectral_norm(evals),
        "spectral_norm": metrics.spectral_norm(evals),
        "stable_rank": metrics.stable_rank(evals),
        "entropy": metrics.entropy(evals),
        "hard_rank": metrics.hard_rank(evals),
        "rank_loss": len(evals) - metrics.hard_rank(evals),
        "weak_rank_loss": metrics.weak_rank_loss(evals),
        "effective_rank": metrics.effective_rank(evals),
        "num_ERG_spikes": metrics.num_ERG_spikes(evals),
    }


def bulk_cells(spectrum: Spectrum, fit: MarchenkoPasturFit) -> Cells:
    """Return the noise bulk fitted to the spectrum and what stands above it."""
    unit = math.sqrt(spectrum.N / spectrum.eigenvalues.mean())
    weakest = fit.sigma * bbp_threshold(spectrum.N, spectrum.M)
    return {
        "num_spikes": fit.num_spikes,
        "spike_threshold": fit.spike_threshold,
        "spike_strength": float(fit.spike_strengths[0]) / weakest if fit.num_spikes else None,
        "mp_softrank": fit.softrank,
        "sigma_mp": fit.sigma * unit,
        "sigma_mp_error": fit.sigma_error * unit,
        "bulk_max": fit.edge_high,
        "bulk_min": fit.edge_low,
        "bulk_D": fit.D,
    }


def null_of(N: int, M: int, rf: int, xmin: XminRule) -> NoiseNull | None:
    """Return the noise that layers of a shape are compared with, None for a shape too small; it is drawn if it is new."""
    return noise_null(N, M, rf, xmin if isinstance(xmin, str) else "ks")


def null_cells(spectrum: Spectrum, row: Mapping[str, Any], xmin: XminRule) -> Cells:
    """Return what noise of this shape gives; its alpha is left out where the caller gave xmin as a number."""
    null = null_of(spectrum.N, spectrum.M, spectrum.rf, xmin)
    if null is None:
        return {}
    cells: Cells = {f"null_{name}": null.band(name)[0] for name in ("stable_rank", "entropy")}
    comparable = isinstance(xmin, str)
    if "bulk_D" in row:
        cells["bulk_p_value"] = null.bulk_p_value(row["bulk_D"])
    if comparable:
        cells |= dict(zip(("null_alpha", "null_alpha_low", "null_alpha_high"), null.band("alpha"), strict=True))
        cells["null_D"] = null.band("D")[0]
    if comparable and "alpha" in row:
        cells["alpha_excess"] = alpha_excess(row["alpha"], *null.band("alpha"))
        cells["gaussian_p_value"] = null.p_value(
            alpha=row["alpha"], D=row["D"], stable_rank=row["stable_rank"], kurtosis=row["kurtosis"]
        )
    return cells


def alpha_excess(alpha: float, median: float, low: float, high: float) -> float:
    """Return how many deviations of noise an alpha lies from that of noise, whose deviations below and above differ."""
    end = low if alpha < median else high
    return float(NORMAL_95 * (alpha - median) / abs(end - median))


def shuffled_cells(spectrum: Spectrum, shuffled: Shuffled) -> Cells:
    """Return what survives a shuffle of the entries: correlation traps, their causes, and how far the spectrum moved."""
    evals, first = spectrum.eigenvalues, shuffled.spectra[0].eigenvalues
    named = [f"{place} = {value:.3g}" for place, value in zip(shuffled.elements, shuffled.values, strict=True)]
    cells: Cells = {
        "num_traps": shuffled.num_traps,
        "trap_elements": "; ".join(named),
        "trap_mean": shuffled.mean,
        "trap_mean_strength": shuffled.mean_strength,
        "max_rand_eval": shuffled.lambda_max,
        "ww_softrank": shuffled.lambda_max / evals[-1],
        "ww_maxdist": evals[-1] - shuffled.lambda_max,
        "rand_distance": rand_distance(evals, first),
        "density_distance": density_distance(evals, np.concatenate(shuffled.spectra)),
    }
    if shuffled.fit is not None:
        cells |= {
            "rand_sigma_mp": shuffled.fit.sigma * math.sqrt(spectrum.N / first.mean()),
            "rand_mp_softrank": shuffled.fit.softrank,
            "rand_bulk_max": shuffled.fit.edge_high,
            "rand_bulk_min": shuffled.fit.edge_low,
        }
    return cells


def vector_cells(weight: torch.Tensor) -> Cells:
    """Return how localised the leading singular vectors of a weight are; the weight must not be zero."""
    left, right = localization(weight, k=1)
    return {
        "participation_left": float(left.participation_ratio[0]),
        "participation_right": float(right.participation_ratio[0]),
        "vector_entropy_left": float(left.entropy[0]),
        "vector_entropy_right": float(right.entropy[0]),
    }


def window_cells(weight: torch.Tensor) -> Cells:
    """Return the alpha of square windows, by the rule of FARMS: from the middle eigenvalue on."""
    fit = fit_power_law(window_eigenvalues(weight), xmin="median")
    return {} if fit.status == "failed" else {"alpha_fixed_aspect": fit.alpha}


def tail_cells(spectrum: Spectrum, fit: PowerLawFit) -> Cells:
    """Return the power law fitted to the tail, and the metrics that follow from its alpha."""
    return {
        "alpha": fit.alpha,
        "D": fit.D,
        "sigma": fit.sigma,
        "xmin": fit.xmin,
        "xmax": fit.xmax,
        "num_pl_spikes": fit.n_tail,
        "alpha_weighted": metrics.alpha_weighted(spectrum.eigenvalues, fit.alpha),
        "log_alpha_norm": metrics.log_alpha_norm(spectrum.eigenvalues, fit.alpha),
        "ERG_gap": metrics.num_ERG_spikes(spectrum.eigenvalues) - fit.n_tail,
        "warning": warning_of_alpha(fit.alpha),
    }


def warning_of_alpha(alpha: float) -> str:
    """Return WeightWatcher's word for an alpha, empty for one between its bounds or a missing one."""
    return "over-trained" if alpha < OVER_TRAINED else "under-trained" if alpha > UNDER_TRAINED else ""


def resampled_cells(fit: PowerLawFit, n_boot: int, seed: int) -> Cells:
    """Return the interval of alpha and the goodness of fit, both from resamples."""
    low, high = fit.confidence_interval(n_boot=n_boot, seed=seed)
    return {"alpha_low": low, "alpha_high": high, "goodness_of_fit": fit.goodness_of_fit(n_boot=n_boot, seed=seed)}


def alternative_cells(fit: PowerLawFit) -> Cells:
    """Return the alternative that beats the power law with the smallest p-value, if one does."""
    rivals = [comparison for name in ALTERNATIVES if (comparison := fit.compare(name)).favours == name]
    if not rivals:
        return {}
    best = min(rivals, key=lambda comparison: comparison.p_value)
    return {"alternative": best.alternative, "alternative_p_value": best.p_value}
