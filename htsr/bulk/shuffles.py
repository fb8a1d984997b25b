"""The same entries in random places: what of a spectrum is correlation, and what the entries alone would give."""

from dataclasses import dataclass

import numpy as np
import scipy
import torch

from htsr.bulk.bbp import bbp_threshold, spike_eigenvalue
from htsr.bulk.bulk_fit import MarchenkoPasturFit, fit_marchenko_pastur
from htsr.bulk.entries import excess_kurtosis
from htsr.spectra.spectrum import Spectrum
from htsr.weights.arrays import as_tensor

# One shuffle of a small matrix says little: below this many eigenvalues five are drawn.
SMALL, REPLICAS = 128, 5
# Elements named at most.
MAX_ELEMENTS = 10


@dataclass(frozen=True)
class Shuffled:
    """The spectra of shuffled copies of a weight.

    Attributes:
        spectra: One spectrum for each replica.
        fit: Marchenko-Pastur fit of the first one; None where it has no bulk.
        num_traps: Correlation traps: eigenvalues of a shuffled copy above its noise edge, median over the replicas. None
            where there is no bulk.
        elements: Positions of the elements that each cause a trap by themselves, largest first, ten at most.
        values: Their values.
        mean: Mean of all entries.
        mean_strength: The singular value that this mean alone amounts to, ``|mean| sqrt(N M)``, over the weakest that
            shows (BBP): above 1 the mean is a trap. NaN where there is no bulk.
    """

    spectra: tuple[Spectrum, ...]
    fit: MarchenkoPasturFit | None
    num_traps: int | None
    elements: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    mean: float
    mean_strength: float

    @property
    def lambda_max(self) -> float:
        """Largest eigenvalue of a shuffled copy, median over the replicas."""
        return float(np.median([spectrum.eigenvalues[-1] for spectrum in self.spectra]))


def shuffle(weight: "torch.Tensor | np.ndarray", *, seed: int = 0) -> Shuffled:
    """Shuffle the entries of a weight and take the spectra.

    Args:
        weight: ``(out, in)`` or ``(out, in, *kernel)``, finite.
        seed: Seed of the shuffles.

    Returns:
        Spectra of five shuffled copies below 128 eigenvalues, of one from there on, and what stands out of their noise
        bulk: a trap, in the words of Martin and Hinrichs (2025), for whatever survives a shuffle is no correlation.

    Raises:
        ValueError: As ``htsr.esd``.

    Notes:
        An isolated element w is a signal of rank one and strength |w|, and the mean is one of strength
        ``|mean| sqrt(N M)``: the BBP transition says which of them a shuffled spectrum shows.
    """
    W = as_tensor(weight).detach()
    generator = torch.Generator().manual_seed(seed)
    first = _shuffled_spectrum(W, generator)
    replicas = REPLICAS if len(first) < SMALL else 1
    spectra = (first, *(_shuffled_spectrum(W, generator) for _ in range(replicas - 1)))
    kurtosis = excess_kurtosis(W)
    fits = [fit_marchenko_pastur(spectrum, first.N, first.M, kurtosis=kurtosis) for spectrum in spectra]
    mean = float(W.double().mean())
    counts = [fit.num_spikes for fit in fits if fit is not None]
    fit = fits[0]
    if fit is None:
        return Shuffled(spectra, None, int(np.median(counts)) if counts else None, (), (), mean, float("nan"))
    num_traps = int(np.median(counts))
    elements, values = _elements_above(W, mean, fit, first.N, first.M) if num_traps else ((), ())
    mean_strength = abs(mean) * np.sqrt(first.N * first.M) / (fit.sigma * bbp_threshold(first.N, first.M))
    return Shuffled(spectra, fit, num_traps, elements, values, mean, float(mean_strength))


def rand_distance(evals: np.ndarray, shuffled: np.ndarray) -> float:
    """Distance between a spectrum and a shuffled one, as WeightWatcher computes it.

    Args:
        evals: Ascending eigenvalues, shape ``(n,)``.
        shuffled: Ascending eigenvalues of a shuffled copy, shape ``(n,)``.

    Returns:
        Square root of the Jensen-Shannon divergence, natural logarithm, between the two rows of sorted eigenvalues, each
        scaled to sum 1 as if the index were the outcome. It is no distance between densities; see ``density_distance``.
    """
    return float(scipy.spatial.distance.jensenshannon(evals, shuffled))


def density_distance(evals: np.ndarray, shuffled: np.ndarray) -> float:
    """Jensen-Shannon distance between two spectral densities, the papers' definition of the distance to random.

    Args:
        evals: Eigenvalues.
        shuffled: Eigenvalues to compare with.

    Returns:
        Square root of the divergence, logarithm to base 2, in [0, 1]: 0 for the same density, 1 for two that nowhere
        overlap. Densities are counted in ``sqrt(n)`` bins that hold the same number of the eigenvalues of both together,
        so that no scale has to be chosen.
    """
    pooled = np.sort(np.concatenate([evals, shuffled]))
    bins = max(2, round(np.sqrt(len(evals))))
    inner = pooled[np.linspace(0, len(pooled), bins + 1).astype(int)[1:-1]]
    counts = [np.bincount(np.searchsorted(inner, x, side="right"), minlength=bins) for x in (evals, shuffled)]
    return float(scipy.spatial.distance.jensenshannon(*counts, base=2))


def _shuffled_spectrum(W: torch.Tensor, generator: torch.Generator) -> Spectrum:
    order = torch.randperm(W.numel(), generator=generator).to(W.device)
    return Spectrum.from_weight(W.reshape(-1)[order].reshape(W.shape))


def _elements_above(
    W: torch.Tensor, mean: float, fit: MarchenkoPasturFit, N: int, M: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Elements whose own spike would stand above the threshold, largest first."""
    strengths = (W.double() - mean).abs().flatten()
    top = strengths.topk(min(MAX_ELEMENTS, len(strengths)))
    shown = spike_eigenvalue(top.values.cpu().numpy() / fit.sigma, N, M) * fit.sigma**2 > fit.spike_threshold
    places = [tuple(map(int, np.unravel_index(index, W.shape))) for index in top.indices.cpu().numpy()[shown]]
    return tuple(places), tuple(float(W[place]) for place in places)
