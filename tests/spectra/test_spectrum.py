"""Eigenvalues against the SVD, and what counts as zero."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from htsr import InputError, Spectrum, analyze, esd, fit_power_law, localization, shuffle
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


def scaled(W, k):
    """W times 10**k in float64, though 10**k itself may underflow."""
    return W * 10.0 ** max(k, -300) * 10.0 ** min(k + 300, 0)


@pytest.fixture(scope="module")
def tailed():
    """A matrix with a planted tail, entries up to 1."""
    W = planted(pareto(2.5, 100), 150)
    return W / W.abs().max()


@pytest.mark.parametrize("k", range(-150, 153))
def test_alpha_does_not_move_with_the_scale(tailed, k):
    reference, moved = fit_power_law(esd(tailed)), fit_power_law(esd(scaled(tailed, k)))
    assert moved.alpha == pytest.approx(reference.alpha, rel=1e-9)
    assert moved.n_tail == reference.n_tail


@pytest.mark.parametrize("k", [*range(-320, -164), *range(154, 309)])
def test_eigenvalues_that_float64_cannot_hold_are_refused_and_not_invented(tailed, k):
    with pytest.raises(
        InputError, match=r"over- or underflow float64.*: multiply the weight by 2\.0\*\*-?\d+$"
    ) as refusal:
        esd(scaled(tailed, k))
    remedy = 2.0 ** int(str(refusal.value).rsplit("**", 1)[1])
    if k > -300:  # below, the entries themselves have lost digits
        alpha = fit_power_law(esd(scaled(tailed, k) * remedy)).alpha
        assert alpha == pytest.approx(fit_power_law(esd(tailed)).alpha, rel=1e-9)


@pytest.mark.parametrize("k", range(-165, -149))
def test_near_the_end_of_the_range_alpha_is_right_or_refused(tailed, k):
    try:
        moved = fit_power_law(esd(scaled(tailed, k)))
    except InputError:
        return
    assert moved.alpha == pytest.approx(fit_power_law(esd(tailed)).alpha, rel=1e-9)


@pytest.mark.parametrize(
    ("dtype", "lowest", "highest", "tolerance"),
    [(torch.float32, -36, 38, 1e-6), (torch.bfloat16, -36, 38, 5e-3), (torch.float16, -2, 4, 1e-3)],
)
def test_alpha_does_not_move_over_the_range_of_short_types(tailed, dtype, lowest, highest, tolerance):
    """Rounding to the type moves alpha a little; a power of two rounds nothing, and moves nothing."""
    reference = fit_power_law(esd(tailed.to(dtype))).alpha
    for k in range(lowest, highest + 1):
        moved = fit_power_law(esd(scaled(tailed, k).to(dtype)))
        assert moved.alpha == pytest.approx(reference, rel=tolerance)
        exact = tailed.to(dtype).double() * 2.0 ** round(k * np.log2(10))
        if torch.equal(exact.to(dtype).double(), exact):
            assert fit_power_law(esd(exact.to(dtype))).alpha == pytest.approx(reference, rel=1e-12)


@pytest.mark.parametrize("power", [-450, -201, -200, 0, 200, 201, 450])
@pytest.mark.parametrize("shape", [(50, 30), (12, 9, 2, 2)])
def test_a_power_of_two_scales_eigenvalues_exactly(shape, power):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    np.testing.assert_allclose(esd(W * 2.0**power, 1e-9 * 4.0**power) / 4.0**power, esd(W, 1e-9), rtol=1e-13)


def test_a_whole_row_does_not_move_with_the_scale():
    """Everything that has no unit is the same for a weight of 1e-140 as for one of 1."""
    W = torch.randn(60, 40, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    plain, tiny, huge = (
        analyze({"w": W * factor}, randomize=True, vectors=True)["w"].row for factor in (1, 2.0**-450, 2.0**450)
    )
    for name in ("alpha", "D", "num_spikes", "stable_rank", "entropy", "hard_rank", "mp_softrank", "effective_rank", "kurtosis",
                 "null_p_value", "num_traps", "participation_left", "ERG_gap", "weak_rank_loss"):  # fmt: skip
        assert tiny[name] == pytest.approx(plain[name], rel=1e-9), name
        assert huge[name] == pytest.approx(plain[name], rel=1e-9), name
    assert tiny["phase"] == huge["phase"] == plain["phase"] == "random-like"


def test_float32_weight_scaled_down_keeps_every_eigenvalue():
    W = torch.randn(100, 60, generator=torch.Generator().manual_seed(5))
    assert hard_rank(esd(W * 1e-6)) == hard_rank(esd(W)) == 60


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.tensor([[1.0, float("nan")], [float("inf"), 0.0]]), r"non-finite \(2 of 4\)"),
        (torch.full((2, 2), 1e200, dtype=torch.float64), "underflow float64"),
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
