"""Name the dimensions of a weight that its spectrum depends on."""

import math


class Sides:
    """N, M and rf of anything with the shape of a weight, ``(out, in)`` or ``(out, in, *kernel)``."""

    shape: tuple[int, ...]

    @property
    def N(self) -> int:
        """The larger side of one slice."""
        return max(self.shape[:2])

    @property
    def M(self) -> int:
        """The smaller side of one slice, and the number of its eigenvalues."""
        return min(self.shape[:2])

    @property
    def rf(self) -> int:
        """The receptive field: the number of slices of a kernel, 1 for a matrix."""
        return math.prod(self.shape[2:])
