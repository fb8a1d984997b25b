"""Spectra while a model trains."""

from htsr.training.history import History
from htsr.training.monitor import Monitor

__all__ = ["History", "Monitor"]
