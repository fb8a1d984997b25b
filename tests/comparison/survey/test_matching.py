"""Partners of matrices, by names and by values."""

import itertools

import numpy as np
import pytest
import torch

from htsr.comparison.survey import matching
from htsr.comparison.survey.matching import match
from htsr.comparison.survey.networks import Network, sample
from htsr.weights.inventory import Layer
from tests.comparison.survey.conftest import changed, network


def sampled(tensors):
    """A network with the samples of these matrices."""
    layers = [Layer(name, name, "dense", tuple(W.shape), lambda W=W: W, dtype="float32") for name, W in tensors.items()]
    found = Network(layers, [], len(layers), 0, ["float32"])
    found.draw_samples()
    return found


def partners(a, b):
    """Names of the pairs, with whether the axes differ."""
    a, b = sampled(a), sampled(b)
    return {
        (a.layers[pair.a].name, b.layers[pair.b].name): pair.axes != tuple(range(len(pair.axes)))
        for pair in match(a, b)
    }


def matrices(*shapes, seed=0, prefix="w"):
    draw = torch.Generator().manual_seed(seed)
    return {f"{prefix}{number}": torch.randn(*shape, generator=draw) for number, shape in enumerate(shapes)}


@pytest.mark.parametrize("shape", [(30, 20), (25, 25), (8, 6, 3), (8, 6, 5, 3), (7, 7, 3, 3)])
def test_every_order_of_the_axes_is_found(shape):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    for axes in itertools.permutations(range(len(shape))):
        other = W.permute(axes).contiguous()
        (pair,) = match(sampled({"a": W}), sampled({"b": other}))
        assert torch.equal(other.permute(pair.axes), W)
        assert pair.distance == 0


def test_names_decide_and_values_where_they_are_silent():
    a = matrices(*[(20, 15)] * 4, (15, 20))
    same = {name: W + 0.2 * torch.randn(W.shape) for name, W in a.items()}
    assert set(partners(a, same)) == {(name, name) for name in a}
    other = {f"x{name}": W for name, W in reversed(same.items())}
    assert set(partners(a, other)) == {(name, f"x{name}") for name in a}
    # numbers as names may agree by chance
    shifted = {f"w{(number + 1) % 4}": a[f"w{number}"] for number in range(4)}
    assert set(partners(a, shifted)) == {(f"w{number}", f"w{(number + 1) % 4}") for number in range(4)}


def test_unrelated_matrices_keep_their_names():
    a, b = matrices(*[(20, 15)] * 5), matrices(*[(20, 15)] * 5, seed=1)
    assert set(partners(a, dict(reversed(b.items())))) == {(name, name) for name in a}


def test_shapes_without_a_partner_and_repeated_matrices():
    a = matrices((20, 15), (9, 8))
    assert partners(a, matrices((20, 14), (9, 8, 2))) == {}
    twice = {"p": a["w0"], "q": a["w0"].mT.contiguous()}
    assert len(partners(a, twice)) == 1
    assert partners(twice, a) in ({("p", "w0"): False}, {("q", "w0"): True})


def test_many_matrices_of_one_shape_are_matched_by_their_norms(monkeypatch):
    monkeypatch.setattr(matching, "ALL", 10)
    monkeypatch.setattr(matching, "NEAREST", 5)
    a = {f"e{n}": (1 + n / 10) * W for n, W in enumerate(matrices(*[(12, 10)] * 40).values())}
    order = np.random.default_rng(0).permutation(40)
    b = {f"blob{n}": a[f"e{n}"].half() for n in order}
    assert set(partners(a, b)) == {(f"e{n}", f"blob{n}") for n in range(40)}


@pytest.mark.parametrize("change", [0.01, 0.1, 0.5])
def test_the_distance_estimates_the_relative_change(change):
    tensors = {name: W for name, W in network().items() if W.ndim == 2}
    for pair in match(sampled(changed(tensors, change)), sampled(tensors)):
        assert pair.distance == pytest.approx(change, rel=0.25)


def test_samples_of_odd_matrices():
    assert sample(torch.ones(6, 1)).constant
    assert sample(torch.full((1, 1), 3.0)).norm == 3
    assert not sample(torch.tensor([[1.0, float("nan")]])).constant
    assert np.isfinite(sample(torch.full((4, 3), float("inf"))).values).all()
    W = torch.randn(6, 5).to(torch.float8_e4m3fn)
    assert sample(W).norm == pytest.approx(float(W.float().norm()))
    assert sample(torch.randn(2, 3, 4, 5, 6)).shape == (2, 3, 4, 5, 6)
