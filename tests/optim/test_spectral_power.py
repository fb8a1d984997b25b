"""The spectral power against a float64 reference."""

import pytest
import torch

from htsr.optim import spectral_power
from htsr.optim.spectral_power import power_of_stack, resolve_method
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


METHODS = ["svd", "eigh", "cholesky", "iterate"]


def graded(k, low, m, n, seed=0):
    """Singular values from ``low`` to 1 times the Schatten-4 norm, and the factors of the matrix, float64."""
    draw = torch.Generator().manual_seed(seed)
    s = torch.logspace(0, torch.tensor(low).log10().item(), k, dtype=torch.float64)
    s = s / s.pow(4).sum() ** 0.25
    U, _ = torch.linalg.qr(torch.randn(m, k, generator=draw, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(n, k, generator=draw, dtype=torch.float64))
    return U, s, V


@pytest.mark.parametrize(("steps", "low"), [(6, 3e-3), (7, 1e-3)])
@pytest.mark.parametrize(("m", "n"), [(90, 90), (240, 80), (80, 240)])
def test_every_singular_value_of_iterate_in_float32(steps, low, m, n):
    U, s, V = graded(min(m, n), low, m, n)
    G = ((U * s) @ V.mT).float()
    in_domain = s >= low
    for power in [i / 20 for i in range(21)]:
        result = spectral_power(G, power, method="iterate", steps=steps).double()
        found = torch.einsum("mk,mn,nk->k", U, result, V)
        error = (found / s**power - 1).abs()[in_domain].max()
        assert error <= 0.006, (power, float(error))
        off_diagonal = U.mT @ result @ V
        off_diagonal.fill_diagonal_(0)
        assert off_diagonal.abs().max() < 0.006


@pytest.mark.parametrize("power", [-0.25, 0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("scale", ["raw", "spectral", "match_muon"])
@pytest.mark.parametrize("shape", [(20, 20), (40, 15), (15, 40), (3, 12, 30), (2, 2, 30, 12)])
def test_methods_agree(power, scale, shape):
    G = matrix(*shape, seed=3).float()
    exact = spectral_power(G.double(), power, method="svd", scale=scale)
    for method, error in (("eigh", 1e-5), ("iterate", 0.008)):
        result = spectral_power(G, power, method=method, scale=scale, steps=8)
        assert result.shape == G.shape
        slack = 1 if method == "eigh" else 4 if power < 0 else 2 if scale == "match_muon" else 1  # its rank is a count
        assert (result - exact).norm() < slack * error * exact.norm()


@pytest.mark.parametrize("steps", range(5, 10))
@pytest.mark.parametrize(("m", "n", "smallest"), [(9, 32, 1e-2), (9, 64, 1e-2), (9, 64, 1e-3), (16, 288, 1e-2)])
def test_rounding_does_not_explode_in_the_gram_form(m, n, smallest, steps):
    """The Gram matrix of such a matrix has negative eigenvalues in float16; four steps without a new one made NaN of them."""
    draw = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(60, m, m, generator=draw)).Q
    V = torch.linalg.qr(torch.randn(60, n, m, generator=draw)).Q
    S = torch.full((m,), smallest)
    S[0] = 1
    for power in (-0.25, 0.0):
        Y, _, _ = power_of_stack((U * S) @ V.mT, power, "iterate", "raw", steps, torch.float16)
        assert torch.linalg.svdvals(Y).max() < 1.3 * smallest**power


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 0.01), (torch.bfloat16, 0.04)])
@pytest.mark.parametrize("shape", [(96, 128), (64, 256), (256, 64)])
def test_lower_precision_products(dtype, error, shape):
    G = matrix(*shape).float()
    exact = spectral_power(G, 0.125, method="svd")
    result = spectral_power(G, 0.125, method="iterate", dtype=dtype)
    assert result.dtype == torch.float32
    assert (result - exact).norm() < error * exact.norm()


def test_what_auto_stands_for_on_a_cpu():
    def way(*shape, dtype=torch.float32, **settings):
        return resolve_method(torch.empty(shape, dtype=dtype), 0.125, "auto", **settings)[0]

    assert way(1, 130, 150) == "cholesky"
    assert way(1, 128, 150) == "eigh"
    assert way(1, 130, 150, dtype=torch.bfloat16) == "cholesky"
    assert way(1, 100, 150, dtype=torch.float64) == "svd"
    assert way(1, 100, 150, steps=7) == "iterate"


RANKS = [1, 4, 16, 64, None]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def of_rank(m, n, rank, dtype=torch.float32):
    """A random matrix of a rank, drawn in float64 and then rounded, with its power 1/8 and rank-many singular values."""
    draw = torch.Generator().manual_seed(m + n + (rank or 0))
    k = rank or min(m, n)
    if rank is None:
        G = torch.randn(m, n, generator=draw, dtype=torch.float64)
    else:
        G = torch.randn(m, k, generator=draw, dtype=torch.float64) @ torch.randn(
            k, n, generator=draw, dtype=torch.float64
        )
    U, S, Vh = torch.linalg.svd(G.to(dtype).double(), full_matrices=False)
    return G.to(dtype), (U[:, :k], S[:k], Vh[:k])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("m", "n"), [(256, 140), (130, 200), (150, 150), (40, 60)])
def test_auto_is_right_for_every_rank_and_leaves_noise_out(m, n, rank, dtype):
    if rank is not None and rank >= min(m, n):
        pytest.skip("that is the full rank")
    G, (U, S, Vh) = of_rank(m, n, rank, dtype)
    for power in (-0.25, 0.0, 1 / 16, 0.125, 0.5, 1.0):
        Y, share, _ = power_of_stack(G[None], power, "auto", "raw")
        kept = round(float(share[0]) * min(m, n))
        assert kept == len(S) or (rank is None and m == n and kept == m - 1)  # one may drown in a half type's noise
        expected = (U[:, :kept] * S[:kept] ** power) @ Vh[:kept]
        assert (Y[0].double() - expected).norm() < 0.002 * expected.norm()


@pytest.mark.parametrize("rank", RANKS)
def test_a_float32_product_of_low_rank_has_that_rank(rank):
    """The rounding of its sums is no signal, either."""
    draw = torch.Generator().manual_seed(1)
    G = torch.randn(200, rank or 100, generator=draw) @ torch.randn(rank or 100, 100, generator=draw)
    momentum = torch.zeros_like(G)
    for _ in range(5):
        momentum.lerp_(G * torch.rand(1, generator=draw), 0.05)
    assert float(spectral_power(momentum, 0.125, scale="match_muon").norm()) == pytest.approx(
        (rank or 100) ** 0.5, rel=1e-5
    )


@pytest.mark.parametrize("low", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(("m", "n"), [(140, 140), (256, 130), (70, 140)])
def test_auto_resolves_wide_spectra_of_float32(low, m, n):
    U, s, V = graded(min(m, n), low, m, n)
    G = ((U * s) @ V.mT).float()
    for power in (-0.25, 0.0, 0.125, 0.5):
        expected = (U * s**power) @ V.mT
        error = (spectral_power(G, power).double() - expected).norm() / expected.norm()
        assert error < (0.05 if power < 0 and low == 1e-6 else 0.006), (power, float(error))


@pytest.mark.parametrize("method", ["svd", "eigh", "cholesky", "auto"])
@pytest.mark.parametrize("size", [1, 1e200])
def test_float64_is_resolved_to_the_last_digits(method, size):
    """At condition 1e12, as at 1e3, and beyond the range of float32."""
    U, s, V = graded(30, 1e-12, 30, 50)
    expected = (U * (size * s) ** 0.125) @ V.mT
    error = (spectral_power((U * size * s) @ V.mT, 0.125, method=method) - expected).norm() / expected.norm()
    assert error < 1e-4


@pytest.mark.parametrize("method", ["svd", "eigh", "cholesky", "iterate", "auto"])
@pytest.mark.parametrize("power", [-0.25, -0.1, 0.0, 0.125, 1.0])
@pytest.mark.parametrize("shape", [(100, 70), (80, 80), (2, 70, 100)])
def test_the_spectral_scale_has_spectral_norm_one(method, power, shape):
    result = spectral_power(matrix(*shape).float(), power, method=method, scale="spectral")
    norms = torch.linalg.matrix_norm(result.double(), 2)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0.02 if method == "iterate" else 5e-3, atol=0)


@pytest.mark.parametrize("rank", [4, None])
def test_iterates_of_auto_give_way_where_they_lose_directions(rank):
    """As on a GPU: float16 iterates are checked, and lost matrices are decomposed, in a stack with others that are not."""
    full, _ = of_rank(96, 200, None)
    G, (U, S, Vh) = of_rank(96, 200, rank)
    Y, share, _ = power_of_stack(torch.stack([full, G]), 0.125, "auto", "raw", dtype=torch.float16)
    expected = (U * S**0.125) @ Vh
    assert (Y[1].double() - expected).norm() < 0.01 * expected.norm()
    torch.testing.assert_close(share, torch.tensor([1.0, (rank or 96) / 96]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("scale", ["match_muon", "spectral"])
@pytest.mark.parametrize("factor", [1e-30, 1e-4, 1e4, 1e30])
def test_scales_that_do_not_depend_on_the_gradient(method, scale, factor):
    G = matrix(80, 100).float()
    at_one = spectral_power(G, 0.125, method=method, scale=scale)
    torch.testing.assert_close(
        spectral_power(G * factor, 0.125, method=method, scale=scale),
        at_one,
        rtol=1e-3,
        atol=1e-3 * float(at_one.std()),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e-20, 1e-4, 1e4, 1e20])
def test_raw_changes_by_the_power_of_the_factor(method, factor):
    G = matrix(20, 30).float()
    expected = factor**0.25 * spectral_power(G, 0.25, method=method)
    torch.testing.assert_close(
        spectral_power(G * factor, 0.25, method=method), expected, rtol=1e-4, atol=1e-4 * float(expected.std())
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("power", [-0.25, 0.0, 0.125, 1.0])
def test_rank_one_keeps_rank_and_norm(method, power):
    G = torch.outer(torch.linspace(1, 2, 30), torch.linspace(-1, 1, 70))
    result = spectral_power(G, power, method=method, scale="match_muon")
    assert float(result.norm()) == pytest.approx(1, rel=0.03)
    torch.testing.assert_close(result / result.norm(), G / G.norm(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", ["match_muon", "spectral", "raw"])
def test_zero_matrices_in_a_stack(method, scale):
    G = torch.stack([torch.zeros(6, 9), matrix(6, 9).float()])
    result = spectral_power(G, 0.125, method=method, scale=scale)
    assert torch.equal(result[0], torch.zeros(6, 9))
    torch.testing.assert_close(result[1], spectral_power(G[1], 0.125, method=method, scale=scale))


def test_stream_converges_on_a_constant_matrix():
    U, s, V = graded(12, 0.02, 12, 30)
    G = ((U * s) @ V.mT).float()
    exact = spectral_power(G, 0.125, method="svd")
    basis = torch.zeros(12, 12)
    errors = []
    for _ in range(40):
        result = spectral_power(G, 0.125, method="stream", basis=basis)
        errors.append(float((result - exact).norm() / exact.norm()))
    assert errors[-1] < 1e-3 < errors[0]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(12), atol=1e-5, rtol=0)


def test_stream_needs_its_basis():
    with pytest.raises(ValueError, match=r"basis of shape \(3, 5, 5\) for method='stream', got none"):
        spectral_power(torch.ones(3, 5, 8), 0.5, method="stream")
    with pytest.raises(ValueError, match=r"got one of shape \(8, 8\)"):
        spectral_power(torch.ones(5, 8), 0.5, method="stream", basis=torch.zeros(8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "iterate", "steps": 4}, "steps from 5 to 9, got 4"),
        ({"method": "iterate", "dtype": torch.int32}, "dtype to be one of"),
    ],
)
def test_settings_of_iterate_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        spectral_power(torch.ones(3, 3), 0.5, **arguments)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_the_input_is_not_changed(method):
    G = matrix(80, 70).float()
    before = G.clone()
    spectral_power(G, 0.125, method=method, scale="match_muon")
    assert torch.equal(G, before)
