"""The BBP transition: where a signal of rank one puts an eigenvalue above noise, and how strong the signal behind it is.

Baik, Ben Arous and Peche (2005); for rectangular matrices Benaych-Georges and Nadakuditi (2012), section 3.1. The strength of a
signal is its singular value theta in W = noise + theta u v^T, in units of the noise's standard deviation. N and M are the sides
of W in either order.
"""

import numpy as np


def bbp_threshold(N: float, M: float) -> float:
    """Return the strength above which a signal moves an eigenvalue out of the bulk, ``(N M)^(1/4)``."""
    return float((N * M) ** 0.25)


def spike_eigenvalue(strength: np.ndarray | float, N: float, M: float) -> np.ndarray:
    """Return the eigenvalue of W^T W that a signal causes, in units of the noise's variance.

    Signals below ``bbp_threshold`` give the upper edge of the bulk.
    """
    squared = np.maximum(np.asarray(strength), bbp_threshold(N, M)) ** 2
    return (squared + N) * (squared + M) / squared


def spike_strength(eigenvalue: np.ndarray | float, N: float, M: float) -> np.ndarray:
    """Return the strength of the signal behind an eigenvalue in units of the noise's variance: ``spike_eigenvalue`` inverted.

    An eigenvalue inside the bulk gives ``bbp_threshold``: it says only that no signal is stronger.
    """
    excess = np.maximum(np.asarray(eigenvalue) - N - M, 2 * np.sqrt(N * M))
    return np.sqrt((excess + np.sqrt(np.maximum(excess**2 - 4 * N * M, 0))) / 2)
