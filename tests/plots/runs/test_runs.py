"""Several runs, the steps of one, and what a step does to the spectrum."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import htsr
from htsr import plots
from htsr.labels import labels
from htsr.plots.runs.curves import together


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two learning rates, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for lr in (0.5, 0.1):
        for seed in (0, 1):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
            optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
            everything = ("weights", "gradients", "momentum", "updates")
            with htsr.Monitor(
                model,
                optimizer,
                every=1,
                run_dir=folder / f"{lr}-{seed}",
                capture=everything if seed == 0 else ("weights",),
                bootstrap=0,
                bulk=False,
            ) as monitor:
                for step in range(3):
                    model(torch.randn(8, 40)).square().mean().backward()
                    optimizer.step()
                    monitor.record(loss=lr + seed + step)
    return htsr.History.load_many(folder)


def test_a_run_is_the_median_over_its_layers(runs):
    curve = plots.curves(runs, "alpha", by="run")[0]
    alphas = runs[curve.value].alpha()
    np.testing.assert_allclose(curve.table["middle"], alphas.median(axis=1))
    np.testing.assert_allclose(curve.table["high"], alphas.quantile(0.75, axis=1))
    assert {found.label for found in plots.curves(runs, "alpha", by="run")} == set(runs.legend.values())


def test_seeds_of_a_setting_are_a_mean_in_a_band(runs):
    slow, fast = plots.curves(runs, "loss", by="lr")
    assert (slow.label, slow.num_runs, fast.value) == ("lr = 0.1", 2, 0.5)
    np.testing.assert_allclose(slow.table[["low", "middle", "high"]], [[s + 0.1, s + 0.6, s + 1.1] for s in range(3)])


def test_runs_that_differ_in_their_seed_alone_share_a_curve(runs):
    found = plots.curves(runs, "loss")
    assert [(curve.label, curve.value, curve.num_runs) for curve in found] == [
        ("lr = 0.1", 0.1, 2),
        ("lr = 0.5", 0.5, 2),
    ]
    pd.testing.assert_frame_equal(found[0].table, plots.curves(runs, "loss", by="lr")[0].table)
    labelled = {label: history for label, history in runs.items() if label != "0.1-1"}
    found = plots.curves(type(runs)(labelled, named=False), "loss")  # a single seed of one rate
    assert [(curve.label, curve.num_runs) for curve in found] == [("lr = 0.1", 1), ("lr = 0.5", 2)]
    named = {f"run {label}": history for label, history in runs.items()}
    assert [curve.label for curve in plots.curves(named, "loss")] == list(named)


def test_a_seed_that_torch_drew_stands_in_no_label():
    drawn = 6519790293010579031
    found = labels({"a": {"lr": 0.1, "seed": drawn}, "b": {"lr": 0.2, "seed": drawn + 1}})
    assert found == {"a": "lr = 0.1", "b": "lr = 0.2"}
    assert labels({"a": {"seed": drawn}, "b": {"seed": 3}}) == {"a": "random seed", "b": "seed = 3"}


def test_the_name_of_a_scalar_stays(runs, monkeypatch):
    first = next(iter(runs.values()))
    monkeypatch.setattr(type(first), "scalars", pd.DataFrame({"step": [1, 2], "val_acc": [0.5, 0.6]}))
    assert plots.plot_scalars({"a": first}, ["val_acc"])[0].get_ylabel() == "val_acc"


def test_steps_that_only_one_run_has_are_interpolated():
    rising = pd.DataFrame({"middle": [0.0, 4.0]}, index=[0, 2])
    level = pd.DataFrame({"middle": [2.0, 2.0, 2.0]}, index=[0, 1, 3])
    found = together([rising, level])
    np.testing.assert_allclose(found.loc[1], [2, 2, 2])
    np.testing.assert_allclose(found.loc[2], [3, 2, 4])
    np.testing.assert_allclose(found.loc[3], [2, 2, 2])  # beyond the end of one run the other stands alone


def test_a_run_without_the_setting_or_the_scalar_is_named(runs):
    with pytest.raises(ValueError, match=r"does not tell 'dropout'"):
        plots.curves(runs, "loss", by="dropout")
    with pytest.raises(ValueError, match="no run has a value of 'accuracy'"):
        runs.plot("accuracy")


def test_a_panel_for_each_metric_or_scalar(runs):
    figure = runs.plot("alpha", "loss", by="lr")
    alpha, loss = figure.axes
    assert [line.get_label() for line in loss.lines] == ["lr = 0.1 (2 runs)", "lr = 0.5 (2 runs)"]
    assert len(loss.collections) == 2
    assert alpha.get_ylabel() == "alpha"
    assert loss.get_ylabel() == "loss"
    colours = {tuple(np.ravel(line.get_color())) for line in runs.plot("loss", by="run").axes[0].lines}
    assert len(colours) == 4


def test_layers_at_the_last_step_against_a_setting(runs):
    table = plots.last_values(runs, "stable_rank", "lr")
    assert list(table["setting"]) == [0.1] * 4 + [0.5] * 4
    first = table.iloc[0]
    assert first["value"] == runs[first["run"]].over_steps("stable_rank").iloc[-1][first["name"]]
    with pytest.raises(ValueError, match="expected 'optimizer' to be a number in every run"):
        plots.plot_against(runs, "optimizer")
    assert len(plots.plot_against(runs, "lr")) == 2
    assert len(plots.plot_esd_against(runs, "0", "lr").patches) == 2


def test_history_pictures_by_name(runs):
    history = next(iter(runs.values()))
    (loss,) = history.plot("loss").axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), history.scalars["loss"])
    heat = history.plot("stable_rank", how="heat map").axes[0]
    np.testing.assert_allclose(heat.collections[0].get_array(), history.over_steps("stable_rank").T)
    ridges = history.plot("0", how="ridges").axes[0]
    assert [label.get_text() for label in ridges.get_yticklabels()] == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="expected how='lines', 'heat map' or 'ridges'"):
        history.plot("alpha", how="bars")
    with pytest.raises(ValueError, match="expected layers= to be among 0, 1"):
        plots.plot_layers_over_steps(history, layers=["2"])


def test_a_ridge_holds_all_eigenvalues(runs):
    x, found = plots.ridges(next(iter(runs.values())), "0")
    for density in found.values():
        assert 0.85 < np.trapezoid(density, np.log10(x)) < 1.0001


def test_singular_values_from_a_matrix_a_row_or_a_spectrum():
    W = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    row = torch.linalg.svdvals(W.double())
    expected = row.numpy() / np.sqrt(np.mean(row.numpy() ** 2))
    for given in (W, W.numpy(), row, htsr.Spectrum.from_weight(W)):
        np.testing.assert_allclose(plots.singular_values(given), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="no singular value above zero"):
        plots.singular_values(torch.zeros(3, 2))


def test_the_power_bends_the_momentum_and_not_the_rest(runs):
    history = next(iter(runs.values()))
    momentum, gradient = (history.spectrum(2, "0", quantity) for quantity in ("momentum", "gradients"))
    ax = plots.plot_update_spectrum(momentum, [0, 0.5, 1], gradient=gradient)
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(drawn["gradient"], plots.singular_values(gradient))
    np.testing.assert_allclose(drawn["momentum, p = 0"], 1)
    np.testing.assert_allclose(drawn["momentum, p = 1"], drawn["momentum"])
    half = np.sqrt(drawn["momentum"])
    np.testing.assert_allclose(drawn["momentum, p = 0.5"] / half, drawn["momentum, p = 0.5"][0] / half[0])


@pytest.mark.parametrize("side", ["out", "in"])
def test_overlaps_of_subspaces(side):
    draw = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(12, 12, generator=draw, dtype=torch.float64)).Q
    values = torch.tensor([9.0, 8, 7, 1, 0.5, 0.1], dtype=torch.float64)

    def weight(left):
        W = (left * values) @ torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=torch.float64)).Q
        return W if side == "out" else W.mT

    # the same three leading directions in another order, two of three, and none
    orders = ([0, 1, 2, 3, 4, 5], [2, 0, 1, 7, 8, 9], [0, 1, 9, 10, 11, 3], [6, 7, 8, 9, 10, 11])
    table = plots.subspace_overlaps({step: weight(Q[:, order]) for step, order in enumerate(orders)}, 3, side)
    np.testing.assert_allclose(table.loc[0], [1, 1, 2 / 3, 0], atol=1e-9)
    np.testing.assert_allclose(table, table.T, atol=1e-9)
    ax = plots.plot_overlap({step: weight(Q[:, order]) for step, order in enumerate(orders)}, 3, side)
    assert "0.25 by chance" in ax.get_title(loc="left").replace("\n", " ")


def test_overlaps_need_weights_of_one_shape():
    with pytest.raises(ValueError, match="two or more weights of one shape"):
        plots.subspace_overlaps({0: torch.ones(3, 2), 1: torch.ones(2, 3)})
    with pytest.raises(ValueError, match="expected side"):
        plots.subspace_overlaps({}, side="up")
    with pytest.raises(ValueError, match="expected rank >= 1"):
        plots.subspace_overlaps({}, 0)
