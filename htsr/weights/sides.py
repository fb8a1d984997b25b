"""The sides of a weight: what of its shape the spectrum depends on."""

import math


class Sides:
    """N, M and the number of slices of whatever has the shape of a weight, ``(out, in)`` or ``(out, in, *kernel)``."""

    shape: tuple[int, ...]

    @property
    def N(self) -> int:
        """The larger side of one slice."""
        return max(self.shape[:2])

    @property
    def M(self) -> int:
        """The smaller side of one slice: the number of eigenvalues it has."""
        return min(self.shape[:2])

    @property
    def rf(self) -> int:
        """The receptive field: the number of slices, 1 for a matrix."""
        return math.prod(self.shape[2:])
