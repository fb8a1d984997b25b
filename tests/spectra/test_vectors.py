"""Localisation against the SVD and closed forms."""

import numpy as np
import pytest
import torch

import htsr
from htsr.errors import InputError


@pytest.mark.parametrize("shape", [(80, 50), (50, 80), (60, 60)])
def test_against_the_svd(shape):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    left, right = htsr.localization(W, k=5)
    for ours, vectors in ((left, U[:, :5]), (right, Vh[:5].T)):
        squares = vectors.numpy() ** 2
        assert ours.participation_ratio == pytest.approx(1 / (len(squares) * (squares**2).sum(0)), rel=1e-6)
        entropy = -(squares * np.log(squares)).sum(0) / np.log(len(squares))
        assert ours.entropy == pytest.approx(entropy, rel=1e-6)


def test_one_coordinate_and_all_of_them():
    W = np.zeros((40, 25))
    W[:, 7] = 1.0
    left, right = htsr.localization(W, k=1)
    assert left.participation_ratio[0] == pytest.approx(1)
    assert left.entropy[0] == pytest.approx(1)
    assert right.participation_ratio[0] == pytest.approx(1 / 25)
    assert right.entropy[0] == pytest.approx(0, abs=1e-9)


def test_the_leading_slice_of_a_convolution():
    W = 0.01 * np.random.default_rng(0).normal(size=(30, 20, 3, 3))
    W[4, 5, 1, 1] = 9.0
    left, right = htsr.localization(W, k=1)
    assert left.participation_ratio[0] == pytest.approx(1 / 30, rel=0.01)
    assert right.participation_ratio[0] == pytest.approx(1 / 20, rel=0.01)


def test_random_vectors_carry_a_third():
    W = np.random.default_rng(0).normal(size=(500, 400))
    row = htsr.analyze({"w": W}, vectors=True)["w"].row
    assert row["participation_left"] == pytest.approx(1 / 3, abs=0.06)
    assert row["participation_right"] == pytest.approx(1 / 3, abs=0.06)
    assert htsr.analyze({"w": W}).details["participation_left"].isna().all()


def test_refused():
    with pytest.raises(InputError, match="shape"):
        htsr.localization(np.ones(5))
    with pytest.raises(ValueError, match="k >= 1"):
        htsr.localization(np.ones((5, 5)), k=0)
    for weight in (np.ones((5, 5), int), np.ones((5, 5), complex), np.ones((0, 5))):
        with pytest.raises(InputError, match="real weight"):
            htsr.localization(weight)
    with pytest.raises(InputError, match="finite"):
        htsr.localization(np.full((5, 5), np.nan))


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_no_vectors_beyond_the_rank(scale):
    left, right = htsr.localization(scale * np.ones((64, 64)), k=5)
    assert left.participation_ratio == pytest.approx([1])
    assert right.entropy == pytest.approx([1])
    assert len(htsr.localization(np.zeros((8, 8)))[0].entropy) == 0
