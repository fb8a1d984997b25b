"""Which singular values of a matrix its entries can resolve, and which ones are rounding noise.

Shapes: b matrices, m rows, n columns, k = min(m, n).
"""

import math

import torch
from torch import Tensor

# How far a singular value must stand above the noise of entries that were rounded once; the bound below is rough by a
# factor of 0.6 to 1.2. Gradients in float32 are sums, which round many times: they carry up to ten times as much.
MARGIN = {torch.float32: 16.0, torch.float64: 16.0}
MARGIN_HALF = 1.4


def relative_noise(dtype: torch.dtype) -> float:
    """Return the standard deviation of rounding noise as a fraction of an entry's magnitude, times the margin."""
    return MARGIN.get(dtype, MARGIN_HALF) * torch.finfo(dtype).eps / 2 / math.sqrt(3)


class RoundingNoise:
    """The noise that rounding to a dtype leaves in the entries of matrices, by its norm in the subspaces that it moves."""

    def __init__(self, G_bmn: Tensor, dtype: torch.dtype) -> None:
        G = G_bmn if G_bmn.shape[-2] <= G_bmn.shape[-1] else G_bmn.mT
        self.k, self.n = G.shape[-2:]
        columns, rows = (torch.linalg.vector_norm(G, dim=dim).double() * relative_noise(dtype) for dim in (-2, -1))
        self.per_entry = torch.linalg.vector_norm(rows, dim=-1, keepdim=True) / math.sqrt(self.k * self.n)
        self.longest = columns.amax(-1, keepdim=True) + rows.amax(-1, keepdim=True)

    def norm(self, count: Tensor) -> Tensor:
        """Return the spectral norm of the noise in the subspace of the smallest ``count`` singular values, times the margin.

        Only a block of it with ``count`` times ``count + n - k`` entries moves these values. Either all of that block makes
        its norm, or what lies in it of a row or a column that is longer than the others.
        """
        other = count + self.n - self.k
        return torch.maximum(
            self.per_entry * (count.sqrt() + other.sqrt()),
            self.longest * (count / self.k * other / self.n).sqrt(),
        )


def resolved(S_bk: Tensor, noise: RoundingNoise, floor: float) -> Tensor:
    """Return which of the descending singular values stand above the noise, shape (b, k).

    ``floor``, a fraction of the largest, is what the calculation of the singular values can resolve.
    """
    count = torch.arange(S_bk.shape[-1], 0, -1, dtype=torch.float64, device=S_bk.device)
    lost = S_bk <= torch.maximum(noise.norm(count), floor * S_bk[:, :1])
    return ~lost.cummax(-1).values
