"""The spectral power against a float64 reference."""

import pytest
import torch

from htsr.optim import spectral_power
from tests.conftest import planted

POWERS = [-0.25, 0.0, 0.125, 0.3, 0.5, 1.0]


def reference(G, power):
    """U diag(s^p) V^T in float64, zero singular values left at zero."""
    U, S, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return (U * torch.where(S > 1e-5 * S.max(), S**power, 0)) @ Vh


def matrix(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shape", [(20, 20), (40, 15), (15, 40), (2, 3, 12, 8), (1, 7), (7, 1)])
def test_against_the_reference(power, shape):
    G = matrix(*shape)
    expected = reference(G.reshape(-1, *shape[-2:])[0], power)
    result = spectral_power(G, power).reshape(-1, *shape[-2:])[0]
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("power", [0.0, 0.125, 0.5])
def test_other_types_keep_their_type(dtype, error, power):
    G = matrix(30, 20).to(dtype)
    result = spectral_power(G, power)
    assert result.dtype == dtype
    expected = reference(G, power)
    assert (result.double() - expected).norm() < error * expected.norm()


def test_power_zero_is_the_polar_factor():
    factor = spectral_power(matrix(30, 20), 0.0)
    torch.testing.assert_close(factor.mT @ factor, torch.eye(20, dtype=factor.dtype))


def test_power_one_is_the_matrix_itself():
    G = matrix(30, 20)
    result = spectral_power(G, 1.0)
    assert torch.equal(result, G)
    assert result is not G


@pytest.mark.parametrize("power", POWERS)
def test_raw_is_homogeneous_and_the_others_do_not_depend_on_the_scale(power):
    G = matrix(20, 12)
    torch.testing.assert_close(spectral_power(1e-4 * G, power), 1e-4**power * spectral_power(G, power))
    for scale in ("match_muon", "spectral"):
        torch.testing.assert_close(spectral_power(1e-4 * G, power, scale=scale), spectral_power(G, power, scale=scale))


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (4, 20, 30)])
def test_scales_have_the_norms_they_promise(power, shape):
    G = matrix(*shape)
    matched, spectral = (spectral_power(G, power, scale=scale) for scale in ("match_muon", "spectral"))
    torch.testing.assert_close(torch.linalg.matrix_norm(matched), torch.full(shape[:-2], 20.0, dtype=G.dtype).sqrt())
    if power >= 0:
        torch.testing.assert_close(torch.linalg.matrix_norm(spectral, 2), torch.ones(shape[:-2], dtype=G.dtype))


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
def test_rank_deficient_matrices_stay_finite_and_rank_deficient(power, scale):
    G = planted(torch.tensor([0.0] * 15 + [1.0, 2.0, 3.0, 4.0, 5.0]), 30).float()
    result = spectral_power(G, power, scale=scale)
    assert torch.isfinite(result).all()
    assert torch.linalg.matrix_rank(result, rtol=1e-3) == 5
    if scale == "match_muon":
        assert float(result.norm()) == pytest.approx(5**0.5, rel=1e-4)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
def test_zero_stays_zero(power, scale):
    assert torch.equal(spectral_power(torch.zeros(2, 5, 3), power, scale=scale), torch.zeros(2, 5, 3))


def test_small_singular_values_of_float32_are_kept():
    """Down to 1e-5 of the largest, a float32 matrix means what it says."""
    G = planted(torch.logspace(-10, 0, 40, dtype=torch.float64), 60).float()
    expected = (lambda U, S, Vh: (U * S**0.125) @ Vh)(*torch.linalg.svd(G.double(), full_matrices=False))
    result = spectral_power(G, 0.125)
    assert (result - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"power": 1.5}, r"power in \[-0.25, 1\].*got 1.5"),
        ({"power": -0.3}, "got -0.3"),
        ({"power": float("nan")}, "got nan"),
        ({"power": 0.5, "scale": "muon"}, "scale to be one of match_muon, spectral, raw, got 'muon'"),
        ({"power": 0.5, "method": "magic"}, "method to be one of"),
    ],
)
def test_bad_settings_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        spectral_power(torch.ones(3, 3), **arguments)


@pytest.mark.parametrize(
    "G", [torch.ones(3), torch.ones(3, 3, dtype=torch.complex64), torch.ones(3, 3, dtype=torch.int64)]
)
def test_what_is_no_matrix_is_refused(G):
    with pytest.raises(ValueError, match="expected real floating-point matrices"):
        spectral_power(G, 0.5)


def test_non_finite_matrices_are_named():
    with pytest.raises(ValueError, match="1 of 9 entries are not finite"):
        spectral_power(torch.tensor([[1.0, float("nan"), 0], [0, 1, 0], [0, 0, 1]]), 0.5)
