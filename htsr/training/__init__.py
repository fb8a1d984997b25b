"""Spectra while a model trains."""

from htsr.training.monitor import Monitor
from htsr.training.schedules import Schedule, at, every, log_spaced
from htsr.training.store.history import History
from htsr.training.store.runs import Runs

__all__ = ["History", "Monitor", "Runs", "Schedule", "at", "every", "log_spaced"]
