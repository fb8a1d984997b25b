"""Shuffle the entries of a weight: what remains of its spectrum comes from the entries alone, not from correlation."""

from dataclasses import dataclass

import numpy as np
import scipy
import torch

from htsr.bulk.bbp import bbp_threshold, spike_eigenvalue
from htsr.bulk.bulk_fit import MarchenkoPasturFit, fit_marchenko_pastur
from htsr.bulk.entries import excess_kurtosis
from htsr.spectra.spectrum import Spectrum, weight_as_tensor

# One shuffled copy of a small matrix says little: below this many eigenvalues ``shuffle`` draws five.
FEW_EIGENVALUES, REPLICAS = 128, 5
# ``shuffle`` names at most this many elements.
MAX_ELEMENTS = 10


@dataclass(frozen=True)
class Shuffled:
    """The spectra of shuffled copies of a weight.

    Attributes:
        spectra: One spectrum for each shuffled copy.
        fit: Marchenko-Pastur fit of the first copy; None if it has no bulk.
        num_traps: Number of correlation traps: eigenvalues of a shuffled copy above its noise edge, median over the copies.
            None if no copy has a bulk.
        elements: Positions of the elements that each cause a trap by themselves, largest first, at most ten.
        values: The values of these elements.
        mean: Mean of all entries.
        mean_strength: The singular value of the mean alone, ``|mean| sqrt(N M)``, divided by that of the weakest visible
            signal (BBP): above 1 the mean causes a trap. NaN if the first copy has no bulk.
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
        """Largest eigenvalue of a shuffled copy, median over the copies."""
        return float(np.median([spectrum.eigenvalues[-1] for spectrum in self.spectra]))


def shuffle(weight: "torch.Tensor | np.ndarray", *, seed: int = 0) -> Shuffled:
    """Shuffle the entries of a weight and compute the spectra of the shuffled copies.

    Args:
        weight: Shape ``(out, in)`` or ``(out, in, *kernel)``, finite.
        seed: Seed of the shuffles.

    Returns:
        The spectra of the shuffled copies (five copies below 128 eigenvalues, one from there on) and the eigenvalues that
        stand above their noise bulk. Martin and Hinrichs (2025) call such an eigenvalue a trap: it survives a shuffle, so it
        is not a correlation.

    Raises:
        TypeError: As ``htsr.esd``.
        InputError: As ``htsr.esd``.

    Notes:
        An isolated element w is a signal of rank one and strength ``|w|``; the mean is one of strength ``|mean| sqrt(N M)``. The
        BBP transition decides which of them show in a shuffled spectrum.
    """
    W = weight_as_tensor(weight).detach()
    generator = torch.Generator().manual_seed(seed)
    first = _shuffled_spectrum(W, generator)
    replicas = REPLICAS if len(first) < FEW_EIGENVALUES else 1
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
        Square root of the Jensen-Shannon divergence (natural logarithm) between the two rows of sorted eigenvalues, each
        scaled to sum 1, as if the index were the outcome. This is not a distance between densities; ``density_distance`` is.
    """
    return float(scipy.spatial.distance.jensenshannon(evals, shuffled))


def density_distance(evals: np.ndarray, shuffled: np.ndarray) -> float:
    """Jensen-Shannon distance between two spectral densities: the distance to random as papers define it.

    Args:
        evals: Eigenvalues, in any order.
        shuffled: The eigenvalues to compare with, in any order.

    Returns:
        Square root of the divergence (logarithm to base 2), in [0, 1]: 0 for equal densities, 1 for densities that do not
        overlap. The densities are histograms with ``sqrt(n)`` bins, each of which holds the same number of the pooled
        eigenvalues, so there is no scale to choose.
    """
    pooled = np.sort(np.concatenate([evals, shuffled]))
    bins = max(2, round(np.sqrt(len(evals))))
    inner = pooled[np.linspace(0, len(pooled), bins + 1).astype(int)[1:-1]]
    counts = [np.bincount(np.searchsorted(inner, x, side="right"), minlength=bins) for x in (evals, shuffled)]
    return float(scipy.spatial.distance.jensenshannon(*counts, base=2))


def _shuffled_spectrum(W: torch.Tensor, generator: torch.Generator) -> Spectrum:
    """Return the spectrum of a copy whose entries the generator has permuted."""
    order = torch.randperm(W.numel(), generator=generator).to(W.device)
    return Spectrum.from_weight(W.reshape(-1)[order].reshape(W.shape))


def _elements_above(
    W: torch.Tensor, mean: float, fit: MarchenkoPasturFit, N: int, M: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Return places and values of the elements that each raise a spike above the threshold, largest first."""
    strengths = (W.double() - mean).abs().flatten()
    top = strengths.topk(min(MAX_ELEMENTS, len(strengths)))
    shown = spike_eigenvalue(top.values.cpu().numpy() / fit.sigma, N, M) * fit.sigma**2 > fit.spike_threshold
    places = [tuple(map(int, np.unravel_index(index, W.shape))) for index in top.indices.cpu().numpy()[shown]]
    return tuple(places), tuple(float(W[place]) for place in places)
