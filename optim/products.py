"""Products of matrices whose result is symmetric: half of it is enough where a kernel can do that.

Shapes: b matrices, m rows, n columns.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

KERNEL_FROM_SIDE = 256  # the tile of the kernels


def gram(X_bmn: Tensor) -> Tensor:
    """Return X X^T, shape (b, m, m)."""
    kernel = _kernel(X_bmn)
    return kernel(X_bmn, X_bmn.mT) if kernel else torch.bmm(X_bmn, X_bmn.mT)


def symmetric_product(A_bmm: Tensor, B_bmm: Tensor) -> Tensor:
    """Return A B for symmetric matrices that commute."""
    kernel = _kernel(A_bmm)
    return kernel(A_bmm, B_bmm) if kernel else torch.bmm(A_bmm, B_bmm)


def quadratic(A_bmm: Tensor, b: float, c: float) -> Tensor:
    """Return b A + c A^2 of symmetric matrices."""
    kernel = _kernel(A_bmm)
    return (
        kernel(A_bmm, A_bmm, C=A_bmm, alpha=c, beta=b)
        if kernel
        else torch.baddbmm(A_bmm, A_bmm, A_bmm, beta=b, alpha=c)
    )


def _kernel(X: Tensor) -> Callable[..., Any] | None:
    """Return the kernel for symmetric results, which Gram Newton-Schulz (Dao AI Lab 2026) uses, where it can run."""
    suits = X.is_cuda and X.dtype in {torch.float16, torch.bfloat16} and X.shape[-2] >= KERNEL_FROM_SIDE
    return _installed_kernel() if suits and not torch.compiler.is_compiling() else None


@lru_cache(maxsize=1)
def _installed_kernel() -> Callable[..., Any] | None:
    try:
        from quack.gemm_interface import gemm_symmetric  # type: ignore[import-not-found]
    except ImportError:  # comes with gram-newton-schulz
        return None
    return gemm_symmetric
