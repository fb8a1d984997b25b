"""The numbers that a page draws are those that the plots draw."""

import numpy as np
import pytest

import htsr
from htsr.plots.spectra.density import histogram
from htsr.plots.spectra.xmin import shown_scan
from htsr.report.page.pictures import esd, picture_of_layer


@pytest.fixture(scope="module")
def layer():
    draw = np.random.default_rng(0)
    W = draw.standard_normal((120, 80)) + 3 * np.outer(draw.standard_normal(120), draw.standard_normal(80))
    return htsr.analyze({"w": W.astype("float32")}, randomize=True)["w"]


def test_the_esd_is_that_of_plot_esd(layer):
    found = esd(layer.spectrum.eigenvalues)
    edges, density = histogram(layer.spectrum.eigenvalues)
    drawn = np.logspace(*found["ends"], len(found["counts"]) + 1)
    np.testing.assert_allclose(drawn, edges, rtol=1e-5)
    np.testing.assert_allclose(
        np.array(found["counts"]) / found["n"] / np.diff(edges), np.nan_to_num(density), rtol=1e-9
    )
    assert found["n"] == 80


def test_the_curves_are_those_of_the_plots_with_few_points(layer):
    few, all_points = picture_of_layer(layer, 20), picture_of_layer(layer, 10_000)
    assert len(few["law"][0]) == 20
    assert {"esd", "shuffled", "law", "edge", "spikes", "threshold", "fit", "scan", "qq"} == set(few)
    for name in ("scan", "qq"):
        assert len(few[name][0]) <= 22
        some = set(zip(*few[name], strict=True))
        assert some < set(zip(*all_points[name], strict=True)) or len(all_points[name][0]) <= 20
    xmin, alpha, _ = few["scan"]
    at = int(np.argmin(np.abs(np.array(xmin) - layer.fit.xmin)))
    assert alpha[at] == pytest.approx(layer.fit.alpha, rel=1e-3)  # the choice itself is among the points
    assert few["edge"] == layer.bulk.edge_high


@pytest.mark.parametrize("tail", [2, 3, 4, 20])
def test_the_chosen_xmin_is_drawn_however_short_its_tail(tail):
    values = np.sort(np.random.default_rng(0).pareto(2, 100) + 1)
    fit = htsr.fit_power_law(values, xmin=float(values[-tail]))
    for points in (None, 20):
        xmin, alpha, _ = shown_scan(fit, points)
        assert fit.xmin in xmin
        assert alpha[xmin == fit.xmin] == pytest.approx(fit.alpha)
        assert (xmin[xmin > fit.xmin] <= values[-5]).all()


@pytest.mark.parametrize("weight", [np.full((30, 20), np.nan), np.zeros((30, 20)), np.eye(30, 20)])
def test_layers_without_a_fit(weight):
    picture = picture_of_layer(htsr.analyze({"w": weight})["w"])
    assert picture is None or "fit" not in picture
