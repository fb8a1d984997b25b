"""Watch spectra while a model trains, and read the runs back."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from htsr.training.monitor import Monitor
    from htsr.training.schedules import CaptureSchedule, at, every, log_spaced
    from htsr.training.store.history import History
    from htsr.training.store.runs import Runs
else:  # a History needs pandas, and a schedule needs neither
    from htsr.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "monitor": ["Monitor"],
            "schedules": ["CaptureSchedule", "at", "every", "log_spaced"],
            "store.history": ["History"],
            "store.runs": ["Runs"],
        },
    )

__all__ = ["CaptureSchedule", "History", "Monitor", "Runs", "at", "every", "log_spaced"]
