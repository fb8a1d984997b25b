"""The ESD of a layer with everything that was fitted to it."""

import numpy as np
import pytest

import htsr


@pytest.fixture(scope="module")
def layer():
    W = np.random.default_rng(0).normal(size=(300, 200))
    W[:, 0] *= 8
    return htsr.analyze({"w": W}, randomize=True)["w"]


@pytest.mark.parametrize("scale", ["log-log", "lin", "log-lin"])
def test_everything_is_shown_and_named(layer, scale):
    (ax,) = layer.plot(scale=scale).axes
    drawn = {
        text.get_text() for legend in [ax.get_legend(), *ax.figure.legends] if legend for text in legend.get_texts()
    }
    edge, xmin = f"noise edge {layer.bulk.edge_high:.3g}", f"xmin {layer.fit.xmin:.3g}"
    assert drawn == {"ESD", "shuffled", "noise law", "power law", edge, xmin, "1 spike"}
    label = ax.get_ylabel()
    assert label == ("density per decade" if scale == "log-lin" else "density")
    assert ax.get_title(loc="left").startswith(f"w\nalpha {layer.fit.alpha:.2f} ± {layer.fit.sigma:.2f}")


def test_unknown_scales_are_refused(layer):
    with pytest.raises(ValueError, match="expected scale to be one of log-log, lin, log-lin, got 'log'"):
        layer.plot(scale="log")


def test_values_beyond_a_linear_axis_are_counted(layer):
    (ax,) = layer.plot(scale="lin").axes
    beyond = int((layer.spectrum.eigenvalues > ax.get_xlim()[1]).sum())
    assert [text.get_text() for text in ax.texts] == ([f"{beyond} more $\\rightarrow$"] if beyond else [])
    assert beyond == 1


@pytest.mark.parametrize("edge", [0.05, 1.0])
def test_the_bulk_fills_a_linear_panel(edge):
    evals = np.append(np.linspace(0.001, 4, 120) ** 2 / 4, [60.0, 80.0, 90.0])
    fit = htsr.fit_power_law(evals, xmin=50.0)
    ax = htsr.plots.plot_esd(evals, fit, bulk_max=edge, scale="lin")
    right = ax.get_xlim()[1]
    assert np.quantile(evals, 0.9) <= right < 10
    drawn = {line.get_label() for line in ax.lines}
    assert drawn == {f"noise edge {edge:.3g}"}
