"""Scalar metrics of a spectrum, one function each. Names are WeightWatcher's; base-10 logarithms where a name has log.

All take the ascending eigenvalues of W^T W, shape ``(n,)``, zeros included.
"""

import numpy as np


def spectral_norm(evals: np.ndarray) -> float:
    """The largest eigenvalue, lambda_max: the *square* of the largest singular value, as in WeightWatcher."""
    return float(evals[-1])


def log_spectral_norm(evals: np.ndarray) -> float:
    """log10 of the largest eigenvalue."""
    return _log10(evals[-1])


def log_norm(evals: np.ndarray) -> float:
    """log10 of the sum of the eigenvalues, the squared Frobenius norm of W."""
    return _log10(evals.sum())


def log_alpha_norm(evals: np.ndarray, alpha: float) -> float:
    """log10 of sum_i lambda_i^alpha, the alpha-Schatten norm (Martin, Peng and Mahoney 2021), free of overflow."""
    top = evals[-1]
    return alpha * _log10(top) + _log10(np.sum((evals / top) ** alpha))


def alpha_weighted(evals: np.ndarray, alpha: float) -> float:
    """Alpha times log10 lambda_max, the alpha-hat of Martin, Peng and Mahoney (2021)."""
    return alpha * _log10(evals[-1])


def stable_rank(evals: np.ndarray) -> float:
    """Sum of the eigenvalues over the largest, ``||W||_F^2 / ||W||_2^2``."""
    return float(evals.sum() / evals[-1])


def hard_rank(evals: np.ndarray) -> int:
    """Number of eigenvalues that are not zero; what counts as zero is decided in ``htsr.esd``."""
    return int(np.count_nonzero(evals))


def weak_rank_loss(evals: np.ndarray) -> int:
    """Number of eigenvalues that are zero, or as good as zero.

    Args:
        evals: Eigenvalues, ascending.

    Returns:
        Eigenvalues below the widest gap among those under 1e-6 of the mean, where that gap is at least a factor of 10: the
        noise that is left beside a matrix of low rank. Zeros always count. A spectrum that reaches down without a gap, as
        heavy-tailed and decaying ones do, loses none.

    Notes:
        WeightWatcher's counts eigenvalues below an absolute 1e-6, which depends on the scale of the weights.
    """
    zeros = len(evals) - hard_rank(evals)
    below = int(np.searchsorted(evals, 1e-6 * evals.mean()))
    steps = evals[zeros + 1 : below + 1] / evals[zeros:below]
    return zeros if not len(steps) or steps.max() < 10 else zeros + int(steps.argmax()) + 1


def entropy(evals: np.ndarray) -> float:
    """Shannon entropy of the normalised eigenvalues over its maximum, ln(hard rank): 1 for a flat spectrum.

    Args:
        evals: Eigenvalues, ascending.

    Returns:
        The ratio, in [0, 1].

    Notes:
        WeightWatcher adds 1e-10 (6e-5 when a GPU is present) to each share before the logarithm; here the zeros are
        left out instead. Without a GPU the two agree to about 1e-6.
    """
    rank = hard_rank(evals)
    return 0.0 if rank == 1 else _shannon(evals) / np.log(rank)


def effective_rank(evals: np.ndarray) -> float:
    """Exp of the Shannon entropy of the normalised singular values (Roy and Vetterli 2007, definition 1)."""
    return float(np.exp(_shannon(np.sqrt(evals))))


def num_ERG_spikes(evals: np.ndarray) -> int:
    """Size of the tail that meets SETOL's trace-log condition, det X = 1.

    With the eigenvalues rescaled to mean 1, the smallest k for which the k largest have a product below 1; the one that
    breaks the condition is counted, as in WeightWatcher.

    Args:
        evals: Eigenvalues, ascending.

    Returns:
        k; all of them where the condition never breaks.

    Notes:
        WeightWatcher multiplies the eigenvalues themselves, which over- or underflows beyond some thousands; here their
        logarithms are added up.
    """
    with np.errstate(divide="ignore"):
        log_product = np.cumsum(np.log(evals[::-1] / evals.mean()))
    below = np.flatnonzero(log_product < 0)
    return int(below[0]) + 1 if len(below) else len(evals)


def _log10(value: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log10(value))


def _shannon(values: np.ndarray) -> float:
    shares = values[values > 0] / values.sum()
    return float(-np.sum(shares * np.log(shares)))
