"""How a direction singles out tokens, and how random directions do.

Two measures are taken, each over the tokens shown. The alignment is the largest cosine between the direction and a token. The
contrast is the largest score in standard deviations of all tokens' scores. Either alone can be had without meaning: the leading
principal directions of an embedding are aligned with large groups of tokens, and single none of them out; and in a direction in
which an embedding hardly extends, a few tokens stand out by next to nothing.

Suffixes: V tokens, D width of the residual stream, K directions, T tokens shown.
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
        promoted: Rows of the embedding with the largest scores, the largest first, shape (K, T).
        suppressed: The same with the lowest scores, the lowest first.
        alignment: The largest |cosine| between a direction and one of these tokens.
        contrast: The largest |score| of one of them, in standard deviations of the scores of all tokens.
        is_first: Whether the promoted end has the largest |cosine|.
    """

    promoted: torch.Tensor
    suppressed: torch.Tensor
    alignment: np.ndarray
    contrast: np.ndarray
    is_first: np.ndarray

    @property
    def measures(self) -> np.ndarray:
        """Alignment and contrast, shape (2, K)."""
        return np.stack([self.alignment, self.contrast])


class Embedding:
    """The rows of an embedding less their mean, with their norms."""

    def __init__(self, rows_VD: torch.Tensor) -> None:
        self.rows_VD = rows_VD
        self.norms_V = rows_VD.norm(dim=1)

    def ends(self, directions_DK: torch.Tensor) -> Ends:
        """Return the tokens whose rows have the largest and the lowest product with each direction, a unit vector."""
        tops = [_top(self.rows_VD, directions_DK), _top(self.rows_VD, -directions_DK)]
        smallest = torch.finfo(torch.float32).tiny
        first, second = (
            (scores_KT / self.norms_V[tokens_KT].clamp_min(smallest)).amax(1).double().numpy()
            for scores_KT, tokens_KT, _ in tops
        )
        largest_K = torch.maximum(tops[0][0][:, 0], tops[1][0][:, 0])
        contrast_K = (largest_K / tops[0][2].clamp_min(smallest).sqrt()).double().numpy()
        return Ends(tops[0][1], tops[1][1], np.maximum(first, second), contrast_K, first >= second)

    def null(self, draws: int, seed: int) -> np.ndarray:
        """Return the measures of random directions of two kinds, ascending: shape (kinds, measures, draws).

        The first are uniform on the sphere, as those of noise are. The second are random mixtures of all tokens, sums of the
        rows with normal weights: they have the anisotropy of the embedding, as the directions that a network uses do, and each
        of them lies nearer to some group of tokens than a uniform one.
        """
        drawn = torch.Generator().manual_seed(seed)
        uniform_DK = torch.randn(self.rows_VD.shape[1], draws, generator=drawn)
        mixed_DK = torch.zeros_like(uniform_DK)
        for block_VD in self.rows_VD.split(BLOCK):
            mixed_DK += block_VD.T @ torch.randn(len(block_VD), draws, generator=drawn)
        kinds = (torch.nn.functional.normalize(kind_DK, dim=0) for kind_DK in (uniform_DK, mixed_DK))
        return np.sort([self.ends(kind_DK).measures for kind_DK in kinds])


def _top(rows_VD: torch.Tensor, directions_DK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each direction's T largest products with a row, the rows, and the variance of its products with all rows."""
    K = directions_DK.shape[1]
    scores_KT, tokens_KT = torch.empty(K, 0), torch.empty(K, 0, dtype=torch.long)
    squares_K = torch.zeros(K)
    # a block at a time: all products with all random directions would take more memory than the embedding
    for start in range(0, len(rows_VD), BLOCK):
        scores_KV = directions_DK.T @ rows_VD[start : start + BLOCK].T
        squares_K += scores_KV.square().sum(1)
        block = scores_KV.topk(min(SHOWN, scores_KV.shape[1]), dim=1)
        scores_KT = torch.cat([scores_KT, block.values], dim=1)
        tokens_KT = torch.cat([tokens_KT, block.indices + start], dim=1)
        best = scores_KT.topk(min(SHOWN, scores_KT.shape[1]), dim=1)
        scores_KT, tokens_KT = best.values, tokens_KT.gather(1, best.indices)
    return scores_KT, tokens_KT, squares_K / len(rows_VD)


def draws_for(k: int) -> int:
    """Return how many random directions of each kind k directions are compared with."""
    return max(DRAWS, DRAWS_A_DIRECTION * k)


def p_values(ends: Ends, null: np.ndarray) -> np.ndarray:
    """Return the p-value of each direction, the largest over kinds and measures.

    The largest makes the test conservative, so that a direction must stand out in both measures and from both kinds.
    """
    # (1 + exceeding) / (1 + draws), Phipson and Smyth (2010), is never zero
    exceeding_K = np.max(
        [
            [len(drawn) - np.searchsorted(drawn, found_K) for drawn, found_K in zip(kind, ends.measures, strict=True)]
            for kind in null
        ],
        axis=(0, 1),
    )
    return (1 + exceeding_K) / (1 + null.shape[-1])


def least_p_value(k: int) -> float:
    """Return the least p-value that one of k directions can have, corrected for their number."""
    return k / (1 + draws_for(k))
