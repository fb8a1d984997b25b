"""What kind of change lies between two models: a signature of each matrix, and the kind that all of them make."""

from htsr.comparison.kinds.decision import KINDS, Kind, kind_of_change
from htsr.comparison.kinds.signature import Signature, signature

__all__ = ["KINDS", "Kind", "Signature", "kind_of_change", "signature"]
