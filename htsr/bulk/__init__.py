"""What noise would look like."""

from htsr.bulk.marchenko_pastur import MarchenkoPasturFit, fit_marchenko_pastur
from htsr.bulk.tracy_widom import tracy_widom_edge

__all__ = ["MarchenkoPasturFit", "fit_marchenko_pastur", "tracy_widom_edge"]
