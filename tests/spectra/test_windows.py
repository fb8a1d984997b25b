"""Square windows: they cover the matrix, and noise of every shape has one alpha."""

import numpy as np
import pytest
import torch

import htsr
from htsr.spectra.windows import window_eigenvalues


@pytest.mark.parametrize("shape", [(7, 7), (23, 7), (7, 23), (14, 7), (5, 12, 3, 1), (12, 5, 2, 2)])
def test_windows_are_square_and_cover_the_weight(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    N, M = max(shape[:2]), min(shape[:2])
    count = -(-N // M)
    starts = np.linspace(0, N - M, count).round().astype(int)
    assert starts[0] == 0
    assert starts[-1] + M == N
    assert (np.diff(starts) <= M).all()  # no gap between two windows
    tall = W.transpose(0, 1) if shape[0] < shape[1] else W
    slices = tall.flatten(2).permute(2, 0, 1) if W.ndim > 2 else tall[None]
    expected = np.sort(
        np.concatenate([np.linalg.svd(A[s : s + M].numpy(), compute_uv=False) ** 2 for A in slices for s in starts])
    )
    np.testing.assert_allclose(window_eigenvalues(W), expected, rtol=1e-9, atol=1e-12)


def test_noise_of_every_shape_has_the_same_alpha():
    rng = np.random.default_rng(0)
    noise = {str(shape): rng.normal(size=shape) for shape in ((128, 128), (512, 128), (96, 700), (64, 32, 3, 3))}
    details = htsr.analyze(noise, fixed_aspect=True, xmin="median", progress=False).details
    assert details["alpha_fixed_aspect"].between(2.0, 2.25).all()
    assert details["alpha"].max() - details["alpha"].min() > 1


def test_the_scale_does_not_matter_and_a_zero_matrix_has_none():
    W = np.random.default_rng(1).normal(size=(60, 20))
    a = htsr.analyze({"w": W, "large": 1e12 * W, "zero": 0 * W}, fixed_aspect=True, bulk=False, progress=False).details
    assert a["alpha_fixed_aspect"][0] == pytest.approx(a["alpha_fixed_aspect"][1], rel=1e-9)
    assert np.isnan(a["alpha_fixed_aspect"][2])
