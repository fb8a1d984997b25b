"""Other packages' interfaces to htsr's numbers, and a comparison of the packages."""

from htsr.compat import weightwatcher
from htsr.compat.constants import DEFAULT_PARAMS, LAYER_TYPE
from htsr.compat.crosscheck import crosscheck
from htsr.compat.table import weightwatcher_table
from htsr.compat.weightwatcher import WeightWatcher

__all__ = ["DEFAULT_PARAMS", "LAYER_TYPE", "WeightWatcher", "crosscheck", "weightwatcher", "weightwatcher_table"]
