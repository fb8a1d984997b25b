"""The BBP transition: what a signal of rank one does to the spectrum of noise, and back.

Baik, Ben Arous and Peche (2005); for rectangular matrices Benaych-Georges and Nadakuditi (2012), section 3.1. Signals are
measured by their singular value, theta, in W = noise + theta u v^T with noise of standard deviation 1 and sides N and M.
"""

import numpy as np


def bbp_threshold(N: float, M: float) -> float:
    """The weakest signal that moves an eigenvalue out of the bulk.

    Args:
        N: One side.
        M: The other.

    Returns:
        Its singular value, ``(N M)^(1/4)``, in units of the noise's standard deviation.
    """
    return float((N * M) ** 0.25)


def spike_eigenvalue(strength: np.ndarray | float, N: float, M: float) -> np.ndarray:
    """Where a signal puts the eigenvalue of W^T W.

    Args:
        strength: Singular value of the signal, above ``bbp_threshold``, in units of the noise's standard deviation.
        N: One side.
        M: The other.

    Returns:
        The eigenvalue, in units of the noise's variance; below the threshold, the upper edge of the bulk.
    """
    squared = np.maximum(np.asarray(strength), bbp_threshold(N, M)) ** 2
    return (squared + N) * (squared + M) / squared


def spike_strength(eigenvalue: np.ndarray | float, N: float, M: float) -> np.ndarray:
    """The signal behind an eigenvalue above the bulk; the inverse of ``spike_eigenvalue``.

    Args:
        eigenvalue: Eigenvalues of W^T W, in units of the noise's variance.
        N: One side.
        M: The other.

    Returns:
        Singular value of each signal; ``bbp_threshold`` for an eigenvalue inside the bulk, which says only that the signal
        is no stronger.
    """
    excess = np.maximum(np.asarray(eigenvalue) - N - M, 2 * np.sqrt(N * M))
    return np.sqrt((excess + np.sqrt(np.maximum(excess**2 - 4 * N * M, 0))) / 2)
