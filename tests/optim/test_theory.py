"""The update is steepest descent: of all matrices of the same Schatten norm it has the largest product with the gradient.

Source: Pang et al. 2026; with q = 1 + 1/p, U diag(s^p) V^T maximises <G, D> under ||D||_q = 1, and the maximum is the dual
norm of G, the Schatten norm with 1 + p.
"""

import pytest
import torch

from htsr.optim import spectral_power


def schatten(G, q):
    return torch.linalg.vector_norm(torch.linalg.svdvals(G), q)


def gradient(seed=0):
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", ["svd", "eigh", "iterate"])
@pytest.mark.parametrize("p", [0.05, 0.125, 0.25, 0.5, 1.0])
def test_no_competitor_gains_more(p, method):
    G, q = gradient(), 1 + 1 / p
    D = spectral_power(G, p, method=method)
    D = D / schatten(D, q)
    attained = (G * D).sum()
    rtol = 1e-4 if method == "iterate" else 1e-10  # an error of 0.4 % costs its square
    torch.testing.assert_close(attained, schatten(G, 1 + p), rtol=rtol, atol=0)
    draw = torch.Generator().manual_seed(1)
    for size in (1e-2, 0.1, 1.0, 10.0):
        for _ in range(100):
            other = D + size * torch.randn(D.shape, generator=draw, dtype=D.dtype)
            assert (G * other).sum() / schatten(other, q) < attained * (1 + rtol)


def test_other_powers_gain_less():
    """So that the test above could fail: the maximum is at the right p, and only there."""
    G, q = gradient(), 1 + 1 / 0.25

    def gain(p):
        D = spectral_power(G, p, method="svd")
        return float((G * D).sum() / schatten(D, q))

    assert max((0.0, 0.125, 0.2, 0.25, 0.3, 0.5, 1.0), key=gain) == 0.25


@pytest.mark.parametrize("method", ["svd", "eigh", "iterate"])
def test_small_powers_tend_to_the_polar_factor(method):
    G = gradient()
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    distances = [float((spectral_power(G, p, method=method) - U @ Vh).norm()) for p in (0.2, 0.1, 0.05, 0.025)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.08


@pytest.mark.parametrize("method", ["svd", "eigh", "iterate"])
def test_powers_near_one_tend_to_the_gradient(method):
    G = gradient()
    distances = [float((spectral_power(G, p, method=method) - G).norm()) for p in (0.9, 0.99, 0.999)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 5e-3 * float(G.norm())
