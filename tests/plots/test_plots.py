"""Every picture is drawn from real results, and shows what it should."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import htsr
from htsr.plots import plot_against_power, plot_bulk, plot_runs_over_steps, plot_scalars


@pytest.fixture(scope="module")
def analysis():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Embedding(50, 30), nn.Linear(60, 40), nn.Linear(40, 1))
    return htsr.analyze(model)


@pytest.fixture(scope="module")
def history():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with htsr.Monitor(model, optimizer, every=1) as monitor:
        for _ in range(3):
            loss = model(torch.randn(8, 40)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.record(loss=loss.item())
    return monitor.history


@pytest.mark.parametrize("kind", ["alpha", "esd", "stable_rank", "num_pl_spikes"])
def test_model_pictures(analysis, kind):
    assert isinstance(analysis.plot(kind), Figure)


def test_layer_picture_shows_the_fit(analysis):
    layer = analysis["2"]
    figure = layer.plot()
    (ax,) = figure.axes
    line = next(line for line in ax.lines if "power law" in str(line.get_label()))
    x, y = line.get_data()
    assert (x[0], x[-1]) == pytest.approx((layer.fit.xmin, layer.fit.xmax))
    assert np.polyfit(np.log(x), np.log(y), 1)[0] == pytest.approx(-layer.fit.alpha)
    assert f"alpha {layer.fit.alpha:.2f}" in ax.get_title(loc="left")


def test_failed_layers_are_drawn_without_a_fit(analysis):
    figure = analysis["3"].plot()
    assert "no fit: 1 distinct" in figure.axes[0].get_title(loc="left")


def test_a_layer_without_spectrum_says_so():
    a = htsr.analyze({"w": torch.full((30, 20), float("nan"))})
    with pytest.raises(ValueError, match=r"no spectrum to draw: non-finite \(600 of 600\)"):
        a["w"].plot()


def test_unknown_pictures_are_errors(analysis, history):
    with pytest.raises(ValueError, match="numeric columns"):
        analysis.plot("name")
    with pytest.raises(ValueError, match="numeric column"):
        history.plot("no such thing")


def test_history_pictures(history):
    for kind in ("alpha", "stable_rank", "0"):
        assert isinstance(history.plot(kind), Figure)


def test_alpha_of_a_few_layers_has_its_interval(history):
    ax = history.plot("alpha").axes[0]
    rows = history.details[history.details["name"] == "1"]
    band = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert np.nanmin(band) == rows["alpha_low"].min()
    assert np.nanmax(band) == rows["alpha_high"].max()
    assert (rows["alpha_low"] <= rows["alpha"]).all()
    assert (rows["alpha"] <= rows["alpha_high"]).all()


def test_run_pictures(history):
    assert len(plot_runs_over_steps({"a": history, "b": history})) == 2
    assert len(plot_against_power({0.0: history, 0.5: history})) == 2
    assert len(plot_scalars({"a": history}, ("loss",))) == 1


def test_figures_do_not_linger(analysis):
    before = plt.get_fignums()
    analysis.plot()
    assert plt.get_fignums() == before


def test_the_scan_for_xmin(analysis):
    layer = analysis["2"]
    top, _ = layer.plot("xmin").axes
    assert (top.lines[-1].get_xdata()[0], top.lines[-1].get_ydata()[0]) == (layer.fit.xmin, layer.fit.D)
    drawn = top.lines[0].get_ydata()
    assert min(drawn) >= layer.fit.D
    assert len(drawn) == layer.fit.n - 4
    with pytest.raises(ValueError, match="no fit to draw: 1 distinct"):
        analysis["3"].plot("xmin")
    with pytest.raises(ValueError, match="got 'ks'"):
        layer.plot("ks")


def test_the_noise_bulk():
    W = np.random.default_rng(0).normal(size=(300, 200))
    W[:, 0] *= 8
    layer = htsr.analyze({"w": W})["w"]
    (ax,) = layer.plot("bulk").axes
    law = ax.lines[0]
    assert np.trapezoid(law.get_ydata(), law.get_xdata()) == pytest.approx(199 / 200, abs=0.01)
    assert ax.lines[1].get_xdata()[0] == pytest.approx(layer.row["spike_threshold"] ** 0.5)
    assert "1 spike," in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="no noise bulk"):
        htsr.analyze({"w": W}, bulk=False)["w"].plot("bulk")
    with pytest.raises(ValueError, match="plot_esd draws a spectrum without a bulk"):
        plot_bulk(layer.spectrum, None)


SINGLE = {
    "esd": lambda a, h, ax: a["2"].plot(ax=ax),
    "bulk": lambda a, h, ax: a["2"].plot("bulk", ax=ax),
    "ccdf": lambda a, h, ax: a["2"].plot("ccdf", ax=ax),
    "qq": lambda a, h, ax: a["2"].plot("qq", ax=ax),
    "hill": lambda a, h, ax: a["2"].plot("hill", ax=ax),
    "depth": lambda a, h, ax: a.plot("alpha", ax=ax),
    "histogram": lambda a, h, ax: a.plot("histogram", ax=ax),
    "phases": lambda a, h, ax: a.plot("phase", ax=ax),
    "layers": lambda a, h, ax: h.plot("alpha", ax=ax),
    "heat map": lambda a, h, ax: h.plot("alpha", how="heat map", ax=ax),
    "layer": lambda a, h, ax: h.plot("0", ax=ax),
    "ridges": lambda a, h, ax: h.plot("0", how="ridges", ax=ax),
    "scalar": lambda a, h, ax: h.plot("loss", ax=ax),
    "phases over steps": lambda a, h, ax: h.plot("phase", ax=ax),
}


@pytest.mark.parametrize("picture", SINGLE)
def test_a_picture_fits_a_column_of_a_dark_page(analysis, history, picture):
    with plt.style.context("dark_background"):
        figure, ax = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
        plt.close(figure)
        assert SINGLE[picture](analysis, history, ax) is figure
        figure.draw_without_rendering()
    assert ax.has_data()
    assert ax.get_window_extent().width > 0.4 * figure.bbox.width
    drawn = figure.get_tightbbox()
    assert drawn.x0 > -0.02
    assert drawn.y0 > -0.02
    assert drawn.x1 < 3.52
    assert drawn.y1 < 2.62
    for axis in (ax.yaxis,) if picture == "phases" else (ax.xaxis, ax.yaxis):  # without blocks there is but one column
        low, high = sorted(axis.get_view_interval())
        assert sum(low <= place <= high for place in axis.get_ticklocs()) >= 2


def test_several_axes_are_drawn_on_in_order(analysis, history):
    figure, axes = plt.subplots(1, 2)
    plt.close(figure)
    assert analysis["2"].plot("xmin", ax=axes) is figure
    assert [ax.get_ylabel() for ax in axes] == ["D", "alpha"]
    with pytest.raises(ValueError, match="expected 2 axes, one for each panel, got 1"):
        analysis["2"].plot("xmin", ax=axes[0])


@pytest.mark.parametrize("picture", ["depth", "esd"])
def test_a_small_figure_without_a_layout_shows_data_and_texts(analysis, history, picture):
    figure, ax = plt.subplots(figsize=(3.4, 2.4))
    plt.close(figure)
    SINGLE[picture](analysis, history, ax)
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    assert min(drawn.x0, drawn.y0) > -0.02
    assert drawn.x1 < 3.42
    assert drawn.y1 < 2.42
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())
