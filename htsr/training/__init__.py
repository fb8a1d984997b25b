"""Spectra while a model trains."""

from htsr.training.history import History
from htsr.training.monitor import Monitor
from htsr.training.runs import Runs
from htsr.training.schedules import Schedule, at, every, log_spaced

__all__ = ["History", "Monitor", "Runs", "Schedule", "at", "every", "log_spaced"]
