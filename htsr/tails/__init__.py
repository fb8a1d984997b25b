"""How heavy the tail of a spectrum is."""

from htsr.tails.alternatives import ALTERNATIVES, TailComparison
from htsr.tails.hill import hill
from htsr.tails.power_law import PowerLawFit, fit_power_law
from htsr.tails.resampling import Interval

__all__ = ["ALTERNATIVES", "Interval", "PowerLawFit", "TailComparison", "fit_power_law", "hill"]
