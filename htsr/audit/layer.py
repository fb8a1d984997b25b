"""One layer: its spectrum, its fit and its row. The one place where a row is put together."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from htsr.audit.findings import findings
from htsr.audit.phases import phase
from htsr.bulk import (
    MarchenkoPasturFit,
    density_distance,
    excess_kurtosis,
    fit_marchenko_pastur,
    noise_null,
    rand_distance,
    shuffle,
)
from htsr.bulk.bbp import bbp_threshold
from htsr.choices import Convention
from htsr.spectra import metrics
from htsr.spectra.spectrum import Spectrum, esd
from htsr.spectra.vectors import localization
from htsr.tails import ALTERNATIVES, PowerLawFit, fit_power_law
from htsr.tails.power_law import MIN_SPREAD, XminRule
from htsr.weights import Layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# WeightWatcher's bounds, from its README: "over-trained" below 2, "under-trained" above 6.
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0
# WeightWatcher 0.7.7: fits leave out eigenvalues below this, whatever the scale of the weights, ...
WEIGHTWATCHER_CUTOFF = 1e-5
# ... and the pooled slices of a Conv2d are multiplied by sqrt(1/2).
WEIGHTWATCHER_CONV2D_SCALE = 0.5

# Rounding the entries of an orthogonal matrix moves its eigenvalues, all 1, by up to 1.2 eps each way (the spectral norm of
# the rounding noise is 0.6 eps for a square matrix); below this many eps of the stored type a spectrum counts as flat.
FLAT_EPS = 4
# An 8-bit type has so few digits that this would call any spectrum flat.
MAX_FLAT = 0.5


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer of an analysis.

    Attributes:
        name: Its name.
        row: Its row of ``Analysis.details``, as a dict.
        spectrum: Its eigenvalues; None where the weight is not finite.
        fit: Its power-law fit, possibly a failed one.
        bulk: Its noise bulk; None where there is none, or none was asked for.
    """

    name: str
    row: dict[str, object]
    spectrum: Spectrum | None
    fit: PowerLawFit
    bulk: MarchenkoPasturFit | None

    @property
    def findings(self) -> list[str]:
        """What a person should look at, a sentence each; none for a layer that is tied to an earlier one."""
        return [] if self.row["tied_to"] else findings(self.row)

    @property
    def bulk_max(self) -> float | None:
        """Upper edge of the noise bulk; None where there is no bulk."""
        return self.row.get("bulk_max")  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"LayerAnalysis({self.name!r}, {self.spectrum}, {self.fit})"

    def plot(self, kind: Literal["esd", "xmin", "bulk"] = "esd") -> "Figure":
        """Draw the layer.

        Args:
            kind: ``"esd"``: the ESD on log-log axes, with the fitted tail, xmin and the edge of the noise bulk. ``"xmin"``: D
                and alpha of every candidate for xmin. ``"bulk"``: the density with the Marchenko-Pastur law fitted to it.

        Returns:
            A matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is none of these, or the layer has no spectrum, or no fit or bulk where one is needed.
        """
        from htsr.plots import plot_bulk, plot_esd, plot_xmin_scan

        if kind not in ("esd", "xmin", "bulk"):
            raise ValueError(f"expected kind='esd', 'xmin' or 'bulk', got {kind!r}")
        if self.spectrum is None:
            raise ValueError(f"layer {self.name!r} has no spectrum to draw: {self.fit.reason}")
        if kind == "xmin":
            return plot_xmin_scan(self.fit, title=self.name)
        if kind == "bulk":
            if self.bulk is None:
                raise ValueError(
                    f"layer {self.name!r} has no noise bulk to draw: at least half of its eigenvalues stand out"
                )
            return plot_bulk(self.spectrum, self.bulk, title=self.name)
        return plot_esd(self.spectrum, self.fit, title=self.name, bulk_max=self.bulk_max)


@dataclass(frozen=True)
class Settings:
    """What ``analyze`` was asked to do with each layer."""

    xmin: XminRule = "ks"
    alternatives: bool = False
    bootstrap: int = 0
    randomize: bool = False
    bulk: bool = True
    vectors: bool = False
    convention: Convention = "htsr"
    seed: int = 0
    device: str | None = None


# What loading a weight and computing its eigenvalues may raise. RuntimeError is all that torch knows, for memory, too.
FAILURES = (ValueError, OSError, RuntimeError, MemoryError)


def analyze_layer(layer: Layer, settings: Settings, floor: float = 0.0) -> LayerAnalysis:
    """One layer's spectrum, fit and row. What cannot be computed is NaN, with the reason. ``floor`` as in ``esd``."""
    try:
        weight = load(layer, settings)
        evals = esd(weight, floor)
    except FAILURES as err:
        return failed(layer, err)
    return describe(layer, weight, evals, settings)


def load(layer: Layer, settings: Settings) -> torch.Tensor:
    """A layer's weight, where it is to be decomposed; raises one of ``FAILURES``."""
    weight = layer.load()
    return weight if settings.device is None else weight.to(settings.device)


def failed(layer: Layer, error: Exception) -> LayerAnalysis:
    """The row of a layer that has no spectrum, with the reason."""
    fit = PowerLawFit.failed(" ".join(str(error).split()) or type(error).__name__)
    row = _identity(layer) | {"status": fit.status, "reason": _reason(fit, layer)}
    return LayerAnalysis(layer.name, row | {"findings": " ".join(findings(row))}, None, fit, None)


def describe(layer: Layer, weight: torch.Tensor, evals: np.ndarray, settings: Settings) -> LayerAnalysis:
    """The row of a layer, given its eigenvalues as ``esd`` returns them."""
    spectrum = Spectrum(evals, tuple(weight.shape))
    row = _identity(layer)
    if settings.convention == "weightwatcher" and len(layer.shape) == 4:  # it does not tell transposed ones apart
        spectrum = Spectrum(spectrum.eigenvalues * WEIGHTWATCHER_CONV2D_SCALE, spectrum.shape)
        weight = weight * math.sqrt(WEIGHTWATCHER_CONV2D_SCALE)  # its shuffles scale alike
    resolution = max(MIN_SPREAD, min(FLAT_EPS * torch.finfo(weight.dtype).eps, MAX_FLAT))
    fit = _fit(spectrum, settings, resolution)
    seed = settings.seed + zlib.crc32(layer.name.encode())
    row |= {"status": fit.status, "reason": _reason(fit, layer)} | _scalar_metrics(spectrum)
    if fit.status == "success":
        row |= _tail_metrics(spectrum, fit)
        if settings.bootstrap:
            row |= _resampled_metrics(fit, settings.bootstrap, seed)
        if settings.alternatives:
            row |= _best_alternative(fit)
    noise = None
    if spectrum.eigenvalues[-1] > 0:
        if settings.bulk:
            kurtosis = excess_kurtosis(weight)
            noise = fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M, kurtosis=kurtosis)
            row |= {"kurtosis": kurtosis} | (_bulk_metrics(spectrum, noise) if noise is not None else {})
            row |= _null_metrics(spectrum, row, settings.xmin)
        if settings.randomize:
            row |= _shuffled_metrics(spectrum, weight, seed)
        if settings.vectors:
            row |= _vector_metrics(weight)
    if settings.bulk:
        named = phase(row)
        row |= {"phase": named.name, "phase_evidence": named.evidence}
    row["findings"] = " ".join(findings(row))
    return LayerAnalysis(layer.name, row, spectrum, fit, noise)


def _identity(layer: Layer) -> dict[str, object]:
    """The cells that are known before the weight is."""
    row: dict[str, object] = {"name": layer.name, "longname": layer.longname, "layer_type": layer.layer_type}
    row |= {"dtype": layer.dtype, "N": layer.N, "M": layer.M, "Q": layer.N / layer.M}
    row |= {"rf": layer.rf, "num_evals": layer.num_evals}
    return row | dict.fromkeys(
        ("warning", "tied_to", "alternative", "phase", "phase_evidence", "trap_elements", "findings"), ""
    )


def _fit(spectrum: Spectrum, settings: Settings, resolution: float) -> PowerLawFit:
    fitted = spectrum.nonzero
    if settings.convention == "weightwatcher":
        fitted = spectrum.eigenvalues[spectrum.eigenvalues > WEIGHTWATCHER_CUTOFF]
    return fit_power_law(fitted, xmin=settings.xmin, resolution=resolution)


def restore_layer(row: dict[str, Any], spectrum: Spectrum | None, settings: Settings) -> "LayerAnalysis":
    """A layer's analysis from what was kept of it, without its weight.

    Args:
        row: Its row.
        spectrum: Its spectrum, if it had one.
        settings: With which it was analysed.

    Returns:
        The same as ``analyze_layer`` gave: fits to the same eigenvalues are the same.
    """
    fit, noise = PowerLawFit.failed(row["reason"]), None
    if spectrum is not None and row["status"] == "success":
        fit = _fit(spectrum, settings, MIN_SPREAD)
    if spectrum is not None and row.get("bulk_max") is not None:
        noise = fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M, kurtosis=row["kurtosis"])
    return LayerAnalysis(row["name"], row, spectrum, fit, noise)


def _reason(fit: PowerLawFit, layer: Layer) -> str:
    return "; ".join(filter(None, (fit.reason, layer.note)))


def _scalar_metrics(spectrum: Spectrum) -> dict[str, object]:
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


def _bulk_metrics(spectrum: Spectrum, fit: MarchenkoPasturFit) -> dict[str, object]:
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


def _null_metrics(spectrum: Spectrum, row: Mapping[str, Any], xmin: XminRule) -> dict[str, object]:
    """What noise of this shape would have given; no alpha of noise for a tail that starts at a given value."""
    comparable = isinstance(xmin, str)
    null = noise_null(spectrum.N, spectrum.M, spectrum.rf, xmin if comparable else "ks")
    if null is None:
        return {}
    cells: dict[str, object] = {f"null_{name}": null.band(name)[0] for name in ("stable_rank", "entropy")}
    if "bulk_D" in row:
        cells["bulk_p_value"] = null.bulk_p_value(row["bulk_D"])
    if comparable:
        cells |= dict(zip(("null_alpha", "null_alpha_low", "null_alpha_high"), null.band("alpha"), strict=True))
        cells["null_D"] = null.band("D")[0]
    if comparable and "alpha" in row:
        cells["null_p_value"] = null.p_value(
            alpha=row["alpha"], D=row["D"], stable_rank=row["stable_rank"], kurtosis=row["kurtosis"]
        )
    return cells


def _shuffled_metrics(spectrum: Spectrum, weight: torch.Tensor, seed: int) -> dict[str, object]:
    shuffled = shuffle(weight, seed=seed)
    evals, first = spectrum.eigenvalues, shuffled.spectra[0].eigenvalues
    named = [f"{place} = {value:.3g}" for place, value in zip(shuffled.elements, shuffled.values, strict=True)]
    cells: dict[str, object] = {
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


def _vector_metrics(weight: torch.Tensor) -> dict[str, object]:
    left, right = localization(weight, k=1)  # not called for a zero weight, which has no vectors
    return {
        "participation_left": float(left.participation_ratio[0]),
        "participation_right": float(right.participation_ratio[0]),
        "vector_entropy_left": float(left.entropy[0]),
        "vector_entropy_right": float(right.entropy[0]),
    }


def _tail_metrics(spectrum: Spectrum, fit: PowerLawFit) -> dict[str, object]:
    warning = "over-trained" if fit.alpha < OVER_TRAINED else "under-trained" if fit.alpha > UNDER_TRAINED else ""
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
        "warning": warning,
    }


def _resampled_metrics(fit: PowerLawFit, n_boot: int, seed: int) -> dict[str, object]:
    low, high = fit.confidence_interval(n_boot=n_boot, seed=seed)
    return {"alpha_low": low, "alpha_high": high, "goodness_of_fit": fit.goodness_of_fit(n_boot=n_boot, seed=seed)}


def _best_alternative(fit: PowerLawFit) -> dict[str, object]:
    """The alternative that beats the power law with the smallest p-value, if one does."""
    rivals = [comparison for name in ALTERNATIVES if (comparison := fit.compare(name)).favours == name]
    if not rivals:
        return {}
    best = min(rivals, key=lambda comparison: comparison.p_value)
    return {"alternative": best.alternative, "alternative_p_value": best.p_value}
