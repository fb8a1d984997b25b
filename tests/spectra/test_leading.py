"""Leading singular directions against torch's SVD, by both paths."""

import numpy as np
import pytest
import torch

from htsr.spectra import leading
from htsr.spectra.leading import leading_directions
from tests.conftest import planted


@pytest.mark.parametrize("whole", [0, 1000])
@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (60, 60)])
@pytest.mark.parametrize("scale", [1e-200, 1, 1e200])
def test_the_same_as_the_svd(monkeypatch, whole, shape, scale):
    monkeypatch.setattr(leading, "MAX_WHOLE", whole)
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, left, right = leading_directions(W * scale, 5)
    U, S, Vh = torch.linalg.svd(W)
    np.testing.assert_allclose(values, S[:5] * scale, rtol=1e-10)
    for found, expected in ((left, U[:, :5]), (right, Vh[:5].T)):
        np.testing.assert_allclose(np.abs((found * expected.numpy()).sum(0)), 1, rtol=1e-10)
    np.testing.assert_allclose(
        np.einsum("nk,nm,mk->k", left, W, right) * scale, values, rtol=1e-10
    )  # signs fit together


def test_what_rounding_can_account_for_is_left_out():
    W = planted(torch.tensor([4.0, 1.0, 0.0, 0.0]), 30)
    assert list(leading_directions(W, 4)[0]) == pytest.approx([2, 1])
    assert list(leading_directions(W, 4, floor=1.5)[0]) == pytest.approx([2])
    assert [part.shape for part in leading_directions(torch.zeros(3, 2), 2)] == [(0,), (3, 0), (2, 0)]
