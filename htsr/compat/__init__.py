"""Other packages' interfaces on htsr's numbers."""

from htsr.compat.table import weightwatcher_table
from htsr.compat.weightwatcher import WeightWatcher

__all__ = ["WeightWatcher", "weightwatcher_table"]
