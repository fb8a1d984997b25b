"""Pictures of what changed."""

import numpy as np
import pytest
import torch

import htsr


def weights(seed, names="abc"):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(60, 40, generator=draw) for name in names}


@pytest.fixture(scope="module")
def comparison():
    a = weights(0)
    return htsr.compare(a, a | {"a": weights(1)["a"], "b": 1.1 * a["b"]})


def test_overview_shows_every_layer(comparison):
    size, alpha, likeness = comparison.plot().axes
    changed, unchanged = size.lines
    np.testing.assert_allclose(changed.get_ydata(), comparison.details["relative_change"][:2])
    assert list(changed.get_xdata()) == [0, 1]
    assert list(unchanged.get_xdata()) == [2]
    after = next(line for line in alpha.lines if line.get_label() == "B")
    np.testing.assert_allclose(after.get_ydata(), comparison.details["alpha_b"])
    cka = next(line for line in likeness.lines if line.get_label() == "CKA")
    np.testing.assert_allclose(cka.get_ydata(), comparison.details["cka"])
    assert [label.get_text() for label in likeness.get_xticklabels()] == ["a", "b", "c"]


def test_many_layers_are_not_named():
    a = weights(0, names=[f"layer{i}" for i in range(90)])
    figure = htsr.compare(a, weights(1, names=list(a)), bulk=False).plot()
    assert "by depth" in figure.axes[2].get_xlabel()


def test_esds_of_a_layer(comparison):
    (ax,) = comparison.plot("a").axes
    assert [patch.get_label().split(",")[0] for patch in ax.patches] == ["A", "B", "B - A"]
    (ax,) = comparison.plot("c").axes  # unchanged: there is no change to draw
    assert [patch.get_label().split(",")[0] for patch in ax.patches] == ["A", "B"]


def test_nothing_to_draw(comparison):
    with pytest.raises(ValueError, match="expected kind='change'"):
        comparison.plot("nonsense")
    nan = {"w": torch.full((30, 20), float("nan"))}
    with pytest.raises(ValueError, match="no layer could be compared"):
        htsr.compare(nan, nan).plot()
    zeros = {"w": torch.zeros(30, 20)}
    with pytest.raises(ValueError, match="no eigenvalue to draw"):
        htsr.compare(zeros, zeros).plot("w")


def test_unchanged_layers_stand_below_the_scale(comparison):
    size = comparison.plot().axes[0]
    _, unchanged = size.lines
    (height,) = unchanged.get_ydata()  # a share of the axes
    low, high = np.log10(size.get_ylim())
    zero, *ticks = size.get_yticks()
    assert (np.log10(zero) - low) / (high - low) == pytest.approx(height)
    assert size.get_yticklabels()[0].get_text() == "0"
    strip = size.patches[-1].get_height()
    shares = (np.log10([*ticks, *comparison.details["relative_change"][:2]]) - low) / (high - low)
    assert height < strip < shares.min()
