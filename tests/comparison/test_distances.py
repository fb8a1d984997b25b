"""CKA and principal angles against closed forms and plain dense references."""

import numpy as np
import pytest
import torch

from htsr.comparison.distances import overlap, similarity
from htsr.spectra.spectrum import Gram, esd_and_leading_vectors


def matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_cka(X, Y, centred):
    """Kornblith et al. (2019), equations 1 to 3, as they stand."""
    H = np.eye(len(X)) - centred / len(X)
    K, L = X @ X.T, Y @ Y.T
    hsic = lambda P, Q: np.trace(P @ H @ Q @ H)  # noqa: E731
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def dense_angles(U, V):
    return np.arccos(np.clip(np.linalg.svd(U.T @ V, compute_uv=False), -1, 1))[::-1]


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (20, 6, 3, 3)])
@pytest.mark.parametrize("low_rank", [False, True])
def test_known_gram_matrices_and_vectors_change_nothing(shape, low_rank):
    a, b = (matrix(*shape, seed=seed) + 0.3 for seed in (0, 1))
    if low_rank:
        a, b = (W * 0 + torch.arange(1.0, len(W) + 1).reshape(-1, *[1] * (W.ndim - 1)) for W in (a, b))
    grams = Gram.of(a), Gram.of(b)
    vectors = [esd_and_leading_vectors(Gram.of(W), 4)[1] for W in (a, b)]
    plain, known = similarity(a, b, rank=4), similarity(a, b, 4, grams, tuple(vectors))
    assert len(plain.angles_out) == (1 if low_rank else 4)
    for name in plain._fields:
        assert np.allclose(getattr(plain, name), getattr(known, name), rtol=0, atol=1e-7 if low_rank else 1e-12)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (30, 30), (20, 6, 3, 3), (90, 5, 2, 2)])
def test_against_the_dense_reference(shape):
    a = matrix(*shape) + 0.3
    b = a + 0.5 * matrix(*shape, seed=1)
    found = similarity(a, b, rank=4)
    A, B = a.flatten(1).numpy(), b.flatten(1).numpy()
    assert found.cka == pytest.approx(dense_cka(A, B, 1), rel=1e-10)
    assert found.cka_uncentred == pytest.approx(dense_cka(A, B, 0), rel=1e-10)
    (U, _, Vt), (P, _, Qt) = (np.linalg.svd(X, full_matrices=False) for X in (A, B))
    np.testing.assert_allclose(found.angles_out, dense_angles(U[:, :4], P[:, :4]), atol=1e-7)
    np.testing.assert_allclose(found.angles_in, dense_angles(Vt[:4].T, Qt[:4].T), atol=1e-7)


def test_more_rows_than_a_block():
    a, b = matrix(9000, 4), matrix(9000, 4, seed=1) + 1
    found = similarity(a, b, rank=2)
    A, B = a - a.mean(0), b - b.mean(0)
    assert found.cka == pytest.approx(float((A.mT @ B).norm() ** 2 / (A.mT @ A).norm() / (B.mT @ B).norm()))


def test_closed_forms():
    a = matrix(50, 30)
    rotation = torch.linalg.qr(matrix(30, 30, seed=2)).Q
    scaled = similarity(a, -3 * a, rank=5)
    assert scaled.cka == pytest.approx(1)
    np.testing.assert_allclose(scaled.angles_out, 0, atol=1e-6)
    np.testing.assert_allclose(scaled.angles_in, 0, atol=1e-6)
    turned = similarity(a, a @ rotation, rank=5)
    assert turned.cka == pytest.approx(1)
    np.testing.assert_allclose(turned.angles_out, 0, atol=1e-6)
    assert turned.angles_in.max() > 0.5
    shifted = similarity(a, a + torch.ones(50, 1) * matrix(1, 30, seed=3), rank=5)
    assert shifted.cka == pytest.approx(1)  # an offset common to all rows is what centring takes out
    assert shifted.cka_uncentred < 0.99


def test_a_known_angle():
    a, b = torch.zeros(8, 5, dtype=torch.float64), torch.zeros(8, 5, dtype=torch.float64)
    a[0, 0] = b[0, 0] = 2
    a[1, 1] = 1
    b[1, 1], b[1, 2] = np.cos(0.3), np.sin(0.3)
    found = similarity(a, b, rank=2)
    np.testing.assert_allclose(found.angles_in, [0.3, 0], atol=1e-12)
    np.testing.assert_allclose(found.angles_out, [0, 0], atol=1e-12)
    assert overlap(found.angles_in) == pytest.approx((1 + np.cos(0.3) ** 2) / 2)


def test_orthogonal_subspaces():
    a, b = torch.zeros(6, 6), torch.zeros(6, 6)
    a[0, 0] = b[5, 5] = 1
    found = similarity(a, b, rank=3)
    np.testing.assert_allclose(found.angles_out, np.pi / 2)
    assert overlap(found.angles_out) == pytest.approx(0, abs=1e-12)
    assert found.cka_uncentred == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_direction_is_made_of_rounding(dtype):
    low_rank = (matrix(80, 3) @ matrix(3, 60, seed=1)).to(dtype)
    assert len(similarity(low_rank, low_rank.double(), rank=10).angles_in) == 3


def test_nothing_to_compare():
    found = similarity(torch.zeros(5, 4), torch.ones(5, 4), rank=3)
    assert np.isnan(found.cka)
    assert np.isnan(found.cka_uncentred)
    assert np.isnan(overlap(found.angles_in))
    with pytest.raises(ValueError, match="one shape"):
        similarity(torch.zeros(5, 4), torch.zeros(4, 5), rank=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40, 20), (20, 40)])
def test_similarity_does_not_move_with_the_scale(dtype, shape):
    draw = torch.Generator().manual_seed(3)
    a = torch.randn(shape, generator=draw, dtype=dtype)
    b = a + 0.3 * torch.randn(shape, generator=draw, dtype=dtype)
    plain = similarity(a, b, 5)
    for factor in (2.0**-100, 2.0**-61, 2.0**61, 2.0**122):
        moved = similarity(a * factor, b / 4 if factor < 1 else b * factor, 5)
        assert (moved.cka, moved.cka_uncentred) == pytest.approx((plain.cka, plain.cka_uncentred), rel=1e-12)
        np.testing.assert_allclose(moved.angles_out, plain.angles_out, rtol=1e-9)
