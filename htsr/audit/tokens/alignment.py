"""How close a direction comes to single tokens, and how close random directions come.

Suffixes: V tokens, D width of the residual stream, K directions.
"""

from dataclasses import dataclass

import numpy as np
import torch

# Tokens shown at each end of a direction.
SHOWN = 8
# Random directions of each kind. At least so many for each direction of a layer, so that the least p-value, times the number of
# directions, is 0.02.
DRAWS, DRAWS_A_DIRECTION = 500, 50
# Rows of the embedding in one product.
BLOCK = 8192


@dataclass(frozen=True)
class Ends:
    """The tokens at the two ends of directions.

    Attributes:
        promoted_K: Rows of the embedding with the largest scores, the largest first, shape (K, SHOWN) or less.
        suppressed_K: The same with the lowest scores, the lowest first.
        alignment_K: The largest |cosine| between a direction and a token of these.
        is_first_K: Whether that token is a promoted one.
    """

    promoted_K: torch.Tensor
    suppressed_K: torch.Tensor
    alignment_K: np.ndarray
    is_first_K: np.ndarray


class Embedding:
    """The rows of an embedding less their mean, with their norms."""

    def __init__(self, rows_VD: torch.Tensor) -> None:
        self.rows_VD = rows_VD
        self.norms_V = rows_VD.norm(dim=1)

    def ends(self, directions_DK: torch.Tensor) -> Ends:
        """Return the tokens whose rows have the largest and the lowest product with each direction, a unit vector."""
        # token by token in blocks: scores of all tokens for all random directions would be larger than the embedding
        best: list[tuple[torch.Tensor, torch.Tensor]] = []
        for sign in (1, -1):
            values, rows = torch.empty(directions_DK.shape[1], 0), torch.empty(directions_DK.shape[1], 0, dtype=torch.long)
            best.append((values, rows))
        for start in range(0, len(self.rows_VD), BLOCK):
            scores_KV = (self.rows_VD[start : start + BLOCK] @ directions_DK).T.contiguous()
            for end, sign in enumerate((1, -1)):
                top = (sign * scores_KV).topk(min(SHOWN, scores_KV.shape[1]), dim=1)
                values = torch.cat([best[end][0], top.values], dim=1)
                rows = torch.cat([best[end][1], top.indices + start], dim=1)
                kept = values.topk(min(SHOWN, values.shape[1]), dim=1)
                best[end] = (kept.values, rows.gather(1, kept.indices))
        cosines = [(values / self.norms_V[rows].clamp_min(torch.finfo(torch.float32).tiny)).amax(1) for values, rows in best]
        first, second = (end.double().numpy() for end in cosines)
        return Ends(best[0][1], best[1][1], np.maximum(first, second), first >= second)

    def null(self, draws: int, seed: int) -> np.ndarray:
        """Return the alignments of random directions, ascending, of two kinds: shape (2, draws).

        The first are uniform on the sphere, which is what a change by noise has. The second are random mixtures of all tokens,
        sums of the rows with normal weights: they follow the anisotropy of the embedding, as the directions that a network uses
        do, and every one of them lies nearer to some group of tokens than a uniform one.
        """
        drawn = torch.Generator().manual_seed(seed)
        uniform_DK = torch.randn(self.rows_VD.shape[1], draws, generator=drawn)
        mixed_DK = torch.zeros_like(uniform_DK)
        for block_VD in self.rows_VD.split(BLOCK):
            mixed_DK += block_VD.T @ torch.randn(len(block_VD), draws, generator=drawn)
        kinds = (torch.nn.functional.normalize(kind_DK, dim=0) for kind_DK in (uniform_DK, mixed_DK))
        return np.sort([self.ends(kind_DK).alignment_K for kind_DK in kinds])


def draws_for(k: int) -> int:
    """Return how many random directions k directions are compared with."""
    return max(DRAWS, DRAWS_A_DIRECTION * k)


def p_values(alignment_K: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return the larger of the two p-values of each direction, times the number of directions (Bonferroni)."""
    # (1 + exceeding) / (1 + draws): Phipson and Smyth (2010), never zero
    exceeding = [len(kind) - np.searchsorted(kind, alignment_K) for kind in null]
    return np.minimum(1.0, len(alignment_K) * (1 + np.max(exceeding, axis=0)) / (1 + null.shape[1]))


def least_p_value(k: int) -> float:
    """Return the least p-value that k directions can have."""
    return k / (1 + draws_for(k))
