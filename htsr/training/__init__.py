"""Watch spectra while a model trains, and read the runs back."""

from htsr.training.monitor import Monitor
from htsr.training.schedules import CaptureSchedule, at, every, log_spaced
from htsr.training.store.history import History
from htsr.training.store.runs import Runs

__all__ = ["CaptureSchedule", "History", "Monitor", "Runs", "at", "every", "log_spaced"]
