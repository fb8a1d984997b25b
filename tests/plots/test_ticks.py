"""Log axes that say where they are, however few decades they span."""

import matplotlib.pyplot as plt
import pytest

from htsr.plots.ticks import LogTicks, log_axis


@pytest.mark.parametrize("size", [(1.2, 1.0), (8, 5)])
@pytest.mark.parametrize(
    "limits", [(1.1, 1.9), (2.1, 7), (3.0001, 3.0002), (0.97, 11), (1e-9, 1e-3), (4e3, 6e4), (1, 1e12), (1e-300, 1e300)]
)
def test_two_ticks_or_more_have_different_labels(limits, size):
    figure, ax = plt.subplots(figsize=size)
    plt.close(figure)
    log_axis(ax, "x", "y")
    ax.set(xlim=limits, ylim=limits)
    figure.draw_without_rendering()
    for axis in (ax.xaxis, ax.yaxis):
        inside = [tick for tick in axis.get_major_ticks() if limits[0] <= tick.get_loc() <= limits[1]]
        labels = [tick.label1.get_text() for tick in inside]
        assert len(labels) >= 2
        assert all(labels)
        assert len(set(labels)) == len(labels) <= 8


@pytest.mark.parametrize("limits", [(0, 1), (-2, -1), (5, 5), (float("nan"), 1)])
def test_limits_without_a_logarithm_have_no_ticks(limits):
    assert list(LogTicks().tick_values(*limits)) == []
