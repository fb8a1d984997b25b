"""How two matrices differ, against what was done to one of them."""

import math

import pytest
import torch

from htsr.comparison.survey import differences
from htsr.comparison.survey.differences import difference, reversed_share

SHAPES = [(60, 40), (31, 64), (24, 10, 3), (12, 9, 3, 5)]
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def normal(*shape, seed=0, scale=0.05):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def name(dtype):
    return str(dtype).removeprefix("torch.")


def compare(a, b, *dtypes, axes=None):
    stored = dtypes or (name(a.dtype), name(b.dtype))
    return difference(a, b, axes or tuple(range(b.squeeze().ndim)), stored)


def to_levels(W, bits, group):
    """Round to the nearest level of a grid that so many neighbours share."""
    groups = W.reshape(-1, group)
    step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return ((groups / step).round() * step).reshape(W.shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal(shape, monkeypatch):
    monkeypatch.setattr(differences, "CHUNK", 100)
    W = normal(*shape)
    found = compare(W, W.clone())
    assert (found.kind, found.relative_change, found.largest, found.correlation) == ("equal", 0, 0, 1)
    axes = (1, 0, *range(2, len(shape)))
    assert compare(W, W.permute(axes).contiguous(), axes=axes).kind == "equal"
    assert compare(W[None], W[..., None]).kind == "equal"  # sides of 1 say nothing
    assert compare(W, W.double()).kind == "equal"


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("a", FLOATS)
@pytest.mark.parametrize("b", FLOATS)
def test_rounding(shape, a, b):
    W = normal(*shape).double() * torch.logspace(-3, 2, shape[0], dtype=torch.float64).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    found = compare(W.to(a), W.to(b))
    if a == b:
        assert found.kind == "equal"
        return
    coarser = max((a, b), key=lambda dtype: torch.finfo(dtype).eps)
    assert (found.kind, found.rounding) == ("rounded", name(coarser))
    apart = (W.to(a).double() - W.to(b).double()).abs()
    assert found.largest == float(apart.max())
    assert found.relative_change == pytest.approx(float(apart.norm() / W.to(b).double().norm()))


def test_rounded_values_in_a_wider_type():
    W = normal(60, 40)
    assert compare(W.bfloat16().float(), W).rounding == "bfloat16"
    assert compare(W, W.half().float(), "float32", "float32").rounding == "float16"


def test_rounding_after_a_block_of_zeros(monkeypatch):
    """Zeros fit every type; the rest of the matrix decides."""
    monkeypatch.setattr(differences, "CHUNK", 80)
    W = normal(60, 40)
    W[:10] = 0
    assert compare(W.half(), W).rounding == "float16"
    assert compare(W.half(), W.bfloat16()).rounding == "bfloat16"
    assert compare(W * (1 + 2e-7), W).rounding == "float32"


def test_a_change_below_or_above_the_rounding():
    W = normal(60, 40)
    one = W.clone()
    one[3, 4] *= 1 + 2e-3
    assert compare(one.half(), W).kind == "changed"  # 2e-3 is two units in the last place of float16
    assert compare((W + 1e-3 * normal(60, 40, seed=1)).bfloat16(), W.bfloat16()).kind == "changed"
    assert compare(W * (1 + 2e-7), W).rounding == "float32"


@pytest.mark.parametrize("shape", [(60, 64), (24, 16, 3)])
@pytest.mark.parametrize(("bits", "group"), [(8, 16), (8, 32), (4, 16), (4, 32), (3, 16)])
def test_quantised(shape, bits, group):
    W = normal(*shape)
    Q = to_levels(W, bits, group)
    found = compare(Q, W, f"int{bits}", "float32")
    assert (found.kind, found.reversed) == ("quantised", 0)
    assert found.relative_change == pytest.approx(float((Q - W).norm() / W.norm()))
    assert compare(W.half(), Q, "float16", "Q4_K").kind == "quantised"
    assert compare(to_levels(W, 8, 32), Q, "Q8_0", "Q4_0").kind in ("equal", "quantised")
    assert compare(Q, W, "float32", "float32").kind == "changed"  # nothing says that these are levels


def test_quantised_with_one_scale_for_each_column():
    W = normal(60, 64) * torch.logspace(-1, 1, 64)
    Q = to_levels(W.mT.contiguous(), 8, 60).mT
    assert compare(Q, W, "int8", "float32").kind == "quantised"


@pytest.mark.parametrize("change", [0.05, 0.2])
def test_fine_tuned_and_then_quantised(change):
    """A change of several times the rounding error puts values into another order; one far below it cannot be seen."""
    W = normal(60, 64)
    tuned = W + change * W.std() * torch.randn(60, 64, generator=torch.Generator().manual_seed(3))
    found = compare(to_levels(tuned, 8, 64), W, "int8", "float32")
    assert found.kind == "changed"
    assert found.reversed == pytest.approx(math.atan(change) / math.pi, rel=0.35)
    slightly = W + 1e-4 * W.std() * torch.randn(60, 64, generator=torch.Generator().manual_seed(3))
    assert compare(to_levels(slightly, 8, 64), W, "int8", "float32").kind == "quantised"


def test_changed_and_unrelated():
    W, noise = normal(60, 40), normal(60, 40, seed=1)
    found = compare(W + 0.1 * noise, W)
    assert found.kind == "changed"
    assert found.relative_change == pytest.approx(0.1 * float(noise.norm() / W.norm()), rel=1e-5)
    assert found.correlation == pytest.approx(
        float(torch.corrcoef(torch.stack([W.flatten(), (W + 0.1 * noise).flatten()]))[0, 1])
    )
    assert compare(W, noise).kind == "unrelated"
    assert compare(torch.ones(20, 10), torch.zeros(20, 10)).kind == "unrelated"
    few = normal(4, 3), normal(4, 3, seed=8)
    few = few[0], few[1] + few[0]  # twelve values correlate by chance
    assert compare(*few).kind == "unrelated"


def test_values_that_are_not_finite():
    W = normal(60, 40)
    W[2, 3], W[5, 6], W[7, 8] = math.nan, math.inf, -math.inf
    assert compare(W, W.clone()).kind == "equal"
    assert compare(W.half(), W).kind == "rounded"
    other = W.clone()
    other[5, 6] = 0.0
    assert compare(other, W).kind == "changed"


def test_reversed_share_of_independent_noise():
    """Two values of unit variance change order under noise of size r with probability arctan(r) / pi."""
    W = normal(400, 64, scale=1.0)
    for r in (0.1, 0.5, 2.0):
        assert reversed_share(W, W + r * normal(400, 64, seed=1, scale=1.0)) == pytest.approx(
            math.atan(r) / math.pi, rel=0.05
        )
    assert reversed_share(W, W**3) == 0
    assert reversed_share(W, -W) == 1
    assert reversed_share(W, torch.zeros_like(W)) == 0
    assert reversed_share(W[:, :1], W[:, :1]) == 1.0
