"""Other packages' interfaces to htsr's numbers, and a comparison of the packages."""

from htsr.compat.crosscheck import crosscheck
from htsr.compat.table import weightwatcher_table
from htsr.compat.weightwatcher import WeightWatcher

__all__ = ["WeightWatcher", "crosscheck", "weightwatcher_table"]
