"""What HTMuon tells a user once in a process: choices that it made and that may surprise."""

import logging
from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

logger = logging.getLogger("htsr.optim")


@lru_cache(maxsize=256)
def tell_once(message: str) -> None:
    """Log a warning, the first time only."""
    logger.warning("%s", message)


def tell_of_no_gradients() -> None:
    """Say that a step could not move anything."""
    tell_once(
        "HTMuon.step() found no gradient in any parameter and moved nothing: call step() after loss.backward() and before "
        "zero_grad()"
    )


def tell_of_unknown_matrices(matrices: Sequence[Tensor]) -> None:
    """Say that several parameters came without the model, so that embeddings and heads among them cannot be known."""
    if sum(p.ndim == 2 for p in matrices) > 1:
        tell_once(
            "HTMuon got parameters without the model, so it updates each one with two or more dimensions as a matrix, also "
            "embeddings and the output layer: HTMuon(parameter_groups(model)) leaves those to AdamW. A group with "
            "algorithm='htmuon' says that this is meant"
        )
