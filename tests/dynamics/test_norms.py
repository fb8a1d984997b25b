"""Norms are those of a float64 SVD."""

import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

from htsr.dynamics import norms


def polar(rows, columns):
    """A matrix whose largest singular values lie close together."""
    G = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return _zeropower_via_newtonschulz(G, (3.4445, -4.775, 2.0315), 5, 1e-7).float()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e18])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (1, 30), (60, 60)])
def test_spectral_norms(monkeypatch, shape, scale, whole):
    monkeypatch.setattr(norms, "MAX_WHOLE", 1024 if whole else 0)
    G = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    X = torch.stack([G[0], polar(*shape)]) * scale
    exact = torch.linalg.svdvals(X.double())
    torch.testing.assert_close(norms.spectral_norms(X), exact[:, 0], rtol=1e-3, atol=0)
    torch.testing.assert_close(norms.frobenius_norms(X), exact.square().sum(-1).sqrt(), rtol=1e-9, atol=0)


def test_lanczos_at_the_edge_of_a_bulk():
    """Gaussian noise has no gap above its bulk, which is the slowest case."""
    X = torch.randn(1, norms.MAX_WHOLE + 10, norms.MAX_WHOLE + 10, generator=torch.Generator().manual_seed(0))
    gram = (X[0] @ X[0].mT).double().numpy()
    from scipy.sparse.linalg import eigsh

    torch.testing.assert_close(
        float(norms.spectral_norms(X)[0]), eigsh(gram, 1, which="LA")[0][0] ** 0.5, rtol=1e-3, atol=0
    )


def test_zeros_have_no_norm():
    for whole in (0, 1024):
        X = torch.zeros(2, 5, 7)
        assert norms.spectral_norms(X).tolist() == [0, 0], whole
        assert norms.singular_values(X).tolist() == [[0] * 5] * 2
