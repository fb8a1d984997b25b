"""Scalar metrics of a spectrum, one function each. Names are WeightWatcher's; a name with "log" means a base-10 logarithm.

Every function takes the ascending eigenvalues of W^T W, shape ``(n,)``, zeros included.
"""

import numpy as np


def spectral_norm(evals: np.ndarray) -> float:
    """Return the largest eigenvalue, lambda_max: the *square* of the largest singular value, as in WeightWatcher."""
    return float(evals[-1])


def log_spectral_norm(evals: np.ndarray) -> float:
    """Return log10 of the largest eigenvalue."""
    return _log10(evals[-1])


def log_norm(evals: np.ndarray) -> float:
    """Return log10 of the sum of the eigenvalues, the squared Frobenius norm of W."""
    return _log10(evals.sum())


def log_alpha_norm(evals: np.ndarray, alpha: float) -> float:
    """Return log10 of sum_i lambda_i^alpha, the alpha-Schatten norm (Martin, Peng and Mahoney 2021), without overflow."""
    top = evals[-1]
    return alpha * _log10(top) + _log10(np.sum((evals / top) ** alpha))


def alpha_weighted(evals: np.ndarray, alpha: float) -> float:
    """Return alpha times log10 lambda_max, the alpha-hat of Martin, Peng and Mahoney (2021)."""
    return alpha * _log10(evals[-1])


def stable_rank(evals: np.ndarray) -> float:
    """Return the sum of the eigenvalues over the largest, ``||W||_F^2 / ||W||_2^2``."""
    return float(evals.sum() / evals[-1])


def hard_rank(evals: np.ndarray) -> int:
    """Return the number of eigenvalues that are not zero; ``htsr.esd`` decides what counts as zero."""
    return int(np.count_nonzero(evals))


def weak_rank_loss(evals: np.ndarray) -> int:
    """Return the number of eigenvalues that are zero, or as good as zero: the noise beside a matrix of low rank.

    Among the eigenvalues under 1e-6 of the mean, those below the widest gap count if that gap is at least a factor of 10. Zeros
    always count. A spectrum that reaches down without a gap, as heavy-tailed and decaying ones do, loses none.

    Notes:
        WeightWatcher counts eigenvalues below an absolute 1e-6, which depends on the scale of the weights.
    """
    zeros = len(evals) - hard_rank(evals)
    below = int(np.searchsorted(evals, 1e-6 * evals.mean()))
    steps = evals[zeros + 1 : below + 1] / evals[zeros:below]
    return zeros if not len(steps) or steps.max() < 10 else zeros + int(steps.argmax()) + 1


def entropy(evals: np.ndarray) -> float:
    """Return the Shannon entropy of the normalised eigenvalues over its maximum, ln(hard rank): 1 for a flat spectrum.

    Notes:
        WeightWatcher adds 1e-10 (6e-5 if a GPU is present) to each share before it takes the logarithm; this function leaves
        the zeros out instead. Without a GPU the two agree to about 1e-6.
    """
    rank = hard_rank(evals)
    return 0.0 if rank == 1 else _shannon(evals) / np.log(rank)


def effective_rank(evals: np.ndarray) -> float:
    """Return exp of the Shannon entropy of the normalised singular values (Roy and Vetterli 2007, definition 1)."""
    return float(np.exp(_shannon(np.sqrt(evals))))


def num_ERG_spikes(evals: np.ndarray) -> int:
    """Return the size of the tail that meets SETOL's trace-log condition, det X = 1.

    With the eigenvalues rescaled to mean 1, this is the smallest k for which the product of the k largest is below 1, so the
    eigenvalue that breaks the condition counts, as in WeightWatcher. If none breaks it, every eigenvalue counts.

    Notes:
        WeightWatcher multiplies the eigenvalues, which over- or underflows beyond some thousands of them; this function adds
        their logarithms.
    """
    with np.errstate(divide="ignore"):
        log_product = np.cumsum(np.log(evals[::-1] / evals.mean()))
    below = np.flatnonzero(log_product < 0)
    return int(below[0]) + 1 if len(below) else len(evals)


def _log10(value: float) -> float:
    """Return log10, which is -inf without a warning for 0."""
    with np.errstate(divide="ignore"):
        return float(np.log10(value))


def _shannon(values: np.ndarray) -> float:
    """Return the Shannon entropy of non-negative values scaled to sum 1, in nats."""
    shares = values[values > 0] / values.sum()
    return float(-np.sum(shares * np.log(shares)))
