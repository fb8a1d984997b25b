"""Products with symmetric results, with and without a kernel for them."""

import pytest
import torch

from htsr.optim import products, spectral_power


def matrix(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def calls(monkeypatch):
    """A kernel that computes as the real one is documented to, and counts its calls."""
    made = []

    def gemm_symmetric(A, B, C=None, alpha=1.0, beta=1.0):
        made.append(A.shape)
        return alpha * (A @ B) + (0 if C is None else beta * C)

    monkeypatch.setattr(products, "_kernel", lambda X: gemm_symmetric)
    return made


@pytest.mark.parametrize("kernel", [True, False])
def test_products(kernel, request):
    if kernel:
        request.getfixturevalue("calls")
    X = matrix(2, 5, 9)
    A = X @ X.mT
    B = A @ A + A
    torch.testing.assert_close(products.gram(X), A)
    torch.testing.assert_close(products.symmetric_product(A, B), A @ B)
    torch.testing.assert_close(products.quadratic(A, 2.0, 3.0), 2 * A + 3 * A @ A)


@pytest.mark.parametrize("shape", [(20, 24), (20, 80)])
def test_newton_schulz_steps_take_the_kernel(shape, calls, monkeypatch):
    with_kernel = spectral_power(matrix(*shape).float(), 0.125, method="iterate")
    assert len(calls) >= 12
    monkeypatch.undo()
    torch.testing.assert_close(
        with_kernel, spectral_power(matrix(*shape).float(), 0.125, method="iterate"), rtol=1e-4, atol=1e-4
    )


def test_no_kernel_on_a_cpu():
    assert products._kernel(torch.ones(1, 512, 512, dtype=torch.float16)) is None
