"""See and steer the weight spectra of neural networks."""

from htsr._version import __version__
from htsr.audit.analysis import Analysis, LayerAnalysis, analyze
from htsr.bulk import MarchenkoPasturFit, NoiseNull, fit_marchenko_pastur, noise_null, shuffle
from htsr.comparison.compare import Comparison, compare
from htsr.comparison.layer import LayerComparison
from htsr.compat.crosscheck import crosscheck
from htsr.errors import InputError
from htsr.spectra.spectrum import Spectrum, esd
from htsr.spectra.vectors import localization
from htsr.tails import PowerLawFit, fit_power_law
from htsr.training import History, Monitor

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # audit a model
    "analyze", "Analysis", "LayerAnalysis", "crosscheck",
    # compare two models
    "compare", "Comparison", "LayerComparison",
    # spectra and fits
    "esd", "Spectrum", "fit_power_law", "PowerLawFit", "fit_marchenko_pastur", "MarchenkoPasturFit",
    # what noise would look like
    "noise_null", "NoiseNull", "shuffle", "localization",
    # watch a training run
    "Monitor", "History",
    # the rest
    "InputError", "__version__",
]  # fmt: skip
