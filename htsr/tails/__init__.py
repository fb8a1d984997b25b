"""How heavy the tail of a spectrum is."""

from htsr.tails.power_law import PowerLawFit, fit_power_law

__all__ = ["PowerLawFit", "fit_power_law"]
