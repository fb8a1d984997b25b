"""What the spectrum of noise looks like, and what stands out from it."""

from htsr.bulk.bulk_fit import MarchenkoPasturFit, fit_marchenko_pastur
from htsr.bulk.entries import excess_kurtosis
from htsr.bulk.nulls import NoiseNull, noise_null
from htsr.bulk.shuffles import Shuffled, density_distance, rand_distance, shuffle
from htsr.bulk.tracy_widom import tracy_widom_edge

__all__ = [
    "MarchenkoPasturFit",
    "NoiseNull",
    "Shuffled",
    "density_distance",
    "excess_kurtosis",
    "fit_marchenko_pastur",
    "noise_null",
    "rand_distance",
    "shuffle",
    "tracy_widom_edge",
]
