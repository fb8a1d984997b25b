"""Eigenvalues against the SVD, and what counts as zero."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from htsr import InputError, Spectrum, esd, fit_power_law, localization, shuffle
from htsr.spectra.metrics import hard_rank
from tests.conftest import pareto, planted


@pytest.mark.parametrize("shape", [(120, 80), (80, 120), (90, 90), (7, 3), (1, 5)])
def test_esd_is_the_squared_singular_values(shape):
    W = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = np.sort(np.linalg.svd(W.numpy(), compute_uv=False) ** 2)
    np.testing.assert_allclose(esd(W), expected, rtol=1e-9, atol=1e-12 * expected[-1])


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (8, 16, 2, 2), (12, 6, 5)])
def test_conv_slices_are_pooled(shape):
    W = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    slices = W.flatten(2).permute(2, 0, 1).numpy()
    expected = np.sort(np.concatenate([np.linalg.svd(s, compute_uv=False) ** 2 for s in slices]))
    np.testing.assert_allclose(esd(W), expected, rtol=1e-8, atol=1e-12 * expected[-1])
    spectrum = Spectrum.from_weight(W)
    assert (spectrum.N, spectrum.M, spectrum.rf) == (max(shape[:2]), min(shape[:2]), np.prod(shape[2:]))


def test_numpy_and_torch_agree(gaussian):
    assert np.array_equal(esd(gaussian.numpy()), esd(gaussian))
    assert np.array_equal(esd(gaussian.float().numpy()), esd(gaussian.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rank_of_stored_low_rank_matrices(dtype):
    """Rounding fills up the spectrum of a stored low-rank matrix; it must not count as rank."""
    draw = torch.Generator().manual_seed(3)
    W = torch.randn(300, 10, generator=draw) @ torch.randn(10, 200, generator=draw)
    assert hard_rank(esd(W.to(dtype))) == 10


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 200), (torch.bfloat16, 200), (torch.float16, 200)])
def test_full_rank_matrices_keep_their_rank(dtype, least):
    W = torch.randn(400, 200, generator=torch.Generator().manual_seed(4)).to(dtype)
    assert hard_rank(esd(W)) >= least


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1e6])
def test_alpha_does_not_move_with_the_scale(scale):
    W = planted(pareto(2.5, 100), 150)
    reference, scaled = fit_power_law(esd(W)), fit_power_law(esd(W * scale))
    assert scaled.alpha == pytest.approx(reference.alpha, rel=1e-9)
    assert scaled.n_tail == reference.n_tail


def test_float32_weight_scaled_down_keeps_every_eigenvalue():
    W = torch.randn(100, 60, generator=torch.Generator().manual_seed(5))
    assert hard_rank(esd(W * 1e-6)) == hard_rank(esd(W)) == 60


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.tensor([[1.0, float("nan")], [float("inf"), 0.0]]), r"non-finite \(2 of 4\)"),
        (torch.full((2, 2), 1e200, dtype=torch.float64), "overflow float64"),
        (torch.zeros(3), r"got shape \(3,\)"),
        (torch.zeros(0, 3), r"got shape \(0, 3\)"),
        (torch.zeros(3, 3, dtype=torch.int32), "int32"),
        (torch.zeros(3, 3, dtype=torch.complex64), "complex64"),
    ],
)
def test_what_is_no_weight_is_refused(weight, message):
    with pytest.raises(InputError, match=message):
        esd(weight)


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(3, 4),
        nn.Sequential(nn.Linear(3, 4)),
        nn.Linear(3, 4).state_dict(),
        {"w": np.eye(3)},
        [torch.eye(3), torch.eye(3)],
        [nn.Linear(3, 4)],
        "model.safetensors",
        Path("model.safetensors"),
        None,
        3.0,
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("function", [esd, Spectrum.from_weight, localization, shuffle])
def test_a_model_is_sent_to_analyze(function, model):
    with pytest.raises(TypeError, match=r"got an object of type \w+; use htsr\.analyze"):
        function(model)


@pytest.mark.parametrize("as_type", [list, tuple, torch.tensor, np.array, lambda rows: [np.array(row) for row in rows]])
def test_rows_of_numbers_are_one_weight(as_type):
    rows = [[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    assert esd(as_type(rows)) == pytest.approx([4, 9])
    assert Spectrum.from_weight(as_type(rows)).shape == (3, 2)


def test_spectrum_is_ascending_immutable_and_an_array():
    spectrum = Spectrum([3.0, 0.0, 1.0], shape=(5, 3))
    assert list(np.asarray(spectrum)) == [0, 1, 3]
    assert list(spectrum.nonzero) == [1, 3]
    assert spectrum.Q == pytest.approx(5 / 3)
    with pytest.raises(ValueError, match="read-only"):
        spectrum.eigenvalues[0] = 1


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [np.nan, 1.0], [[1.0, 2.0]]])
def test_spectrum_refuses_what_no_spectrum_holds(bad):
    with pytest.raises(InputError, match="expected a row of finite eigenvalues"):
        Spectrum(bad, shape=(3, 3))


def test_gradients_and_the_weight_are_left_alone():
    W = torch.nn.Parameter(torch.randn(20, 10))
    before = W.detach().clone()
    esd(W)
    assert torch.equal(W, before)
    assert W.grad is None


def test_blocks_of_rows_add_up():
    W = torch.randn(9000, 20, generator=torch.Generator().manual_seed(6))
    np.testing.assert_allclose(esd(W), np.linalg.eigvalsh(W.double().numpy().T @ W.double().numpy()), rtol=1e-12)
    np.testing.assert_allclose(esd(W.T), esd(W), rtol=1e-14)
