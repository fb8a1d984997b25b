"""See and steer the weight spectra of neural networks."""

from htsr.analysis import Analysis, LayerAnalysis, analyze
from htsr.bulk import MarchenkoPasturFit, fit_marchenko_pastur
from htsr.errors import InputError
from htsr.spectrum import Spectrum, esd
from htsr.tails import PowerLawFit, fit_power_law

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # audit a model
    "analyze", "Analysis", "LayerAnalysis",
    # spectra and fits
    "esd", "Spectrum", "fit_power_law", "PowerLawFit", "fit_marchenko_pastur", "MarchenkoPasturFit",
    # errors
    "InputError",
]  # fmt: skip
