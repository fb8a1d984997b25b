"""Square windows of a matrix: a spectrum whose shape does not depend on the aspect ratio (FARMS, Hu et al., arXiv 2506.06280)."""

import math

import numpy as np
import torch

from htsr.spectra.spectrum import esd, weight_as_tensor


def window_eigenvalues(weight: torch.Tensor | np.ndarray) -> np.ndarray:
    """Pool the eigenvalues of the fewest square windows that cover a weight.

    Args:
        weight: ``(out, in)`` or ``(out, in, *kernel)``; the slices of a convolution are cut alike.

    Returns:
        The eigenvalues, ascending float64: those of ``ceil(N / M)`` windows of side M, evenly spread along the longer side. They
        overlap where N is no multiple of M.

    Raises:
        InputError: As ``esd``.

    Notes:
        FARMS also cuts along the shorter side and takes a side of 100 or 2000 for every layer; where a layer is smaller its
        published code lets the windows shrink to another aspect ratio. Windows of side M fit every layer and use all entries.
        In convolutions the code averages the alphas of blocks; the paper, and this function, average the spectra.
    """
    W = weight_as_tensor(weight)
    longer = 0 if W.shape[0] >= W.shape[1] else 1
    N, M = W.shape[longer], W.shape[1 - longer]
    count = math.ceil(N / M)
    starts = [round(number * (N - M) / max(count - 1, 1)) for number in range(count)]
    return np.sort(np.concatenate([esd(W.narrow(longer, start, M)) for start in starts]))
