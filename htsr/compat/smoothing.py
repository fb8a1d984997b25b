"""Write low-rank versions of a model's weights into it: WeightWatcher's SVDSmoothing and SVDSharpness."""

import math

import numpy as np
import torch

from htsr.audit.layer import WEIGHTWATCHER_CUTOFF
from htsr.bulk import fit_marchenko_pastur, shuffle
from htsr.compat.iterators import WWLayer
from htsr.spectra import metrics
from htsr.spectra.spectrum import Spectrum
from htsr.tails import fit_power_law

METHODS = ("detX", "svd", "rmt", "alpha_min", "auto")
# ``auto`` takes the Marchenko-Pastur bulk for layers with a larger alpha.
LARGE_ALPHA = 6


def smooth(layer: WWLayer, method: str, percent: float) -> None:
    """Keep the leading singular directions of a layer, as many as the method says; of a negative number leave them out."""
    weight = torch.from_numpy(layer.weights)
    if method == "svd":
        number = int(percent * layer.M * layer.rf)
    else:
        number = _number_kept(Spectrum.from_weight(weight), method)
    _replace(layer, weight, number)


def sharpen(layer: WWLayer, seed: int) -> None:
    """Leave out as many leading singular directions as there are spikes in the shuffled weight."""
    weight = torch.from_numpy(layer.weights)
    _replace(layer, weight, -(shuffle(weight, seed=seed).num_traps or 0))


def _number_kept(spectrum: Spectrum, method: str) -> int:
    """Return how many eigenvalues a method keeps."""
    evals = spectrum.eigenvalues
    fit = fit_power_law(evals[evals > WEIGHTWATCHER_CUTOFF])
    if method == "auto":
        method = "rmt" if fit.alpha > LARGE_ALPHA else "detX"
    if method == "detX":
        return metrics.num_ERG_spikes(evals)
    if method == "alpha_min":
        return fit.n_tail if fit.status == "success" else 0
    bulk = fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M)
    return 0 if bulk is None else bulk.num_spikes


def _replace(layer: WWLayer, weight: torch.Tensor, number: int) -> None:
    """Write the weight with ``number`` leading directions kept, or left out if negative; with zero it stays as it is.

    Each slice of a kernel keeps its share of the number, rounded up, as in WeightWatcher.
    """
    if weight.ndim > 2:
        number = math.ceil(number / layer.rf)
    if number == 0:
        return
    slices = weight.reshape(*weight.shape[:2], -1).movedim(-1, 0).double()
    U, S, Vh = torch.linalg.svd(slices, full_matrices=False)
    if number > 0:
        S[:, number:] = 0
    else:
        S[:, :-number] = 0
    low_rank = (U * S[:, None, :]) @ Vh
    layer.replace_layer_weights(np.asarray(low_rank.movedim(0, -1).reshape(weight.shape).to(weight.dtype)))
