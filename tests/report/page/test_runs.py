"""The data of a page of runs."""

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.optim import HTMuon
from htsr.report import runs_page
from htsr.report.page import runs as page_of_runs
from htsr.report.page.runs import runs_data
from htsr.training import Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two powers, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for power in (0.0, 0.5):
        for seed in (0, 1):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(40, 30, bias=False), nn.Linear(30, 20, bias=False))
            optimizer = HTMuon(model.parameters(), power=power)
            with htsr.Monitor(
                model, optimizer, every=2, run_dir=folder / f"p{power}-{seed}", about={"seed": seed}
            ) as monitor:
                for step in range(6):
                    optimizer.zero_grad()
                    loss = model(torch.randn(8, 40)).square().mean()
                    loss.backward()
                    optimizer.step()
                    monitor.record(loss=loss.item(), **{"<b>odd</b>": step})
    return htsr.History.load_many(folder)


def test_values_and_spectra_are_the_histories(runs):
    data = runs_data(runs)
    assert data["kind"] == "runs"
    assert [run["label"] for run in data["runs"]] == list(runs.legend.values())
    for run, history in zip(data["runs"], runs.values(), strict=True):
        assert run["steps"] == history.steps == [0, 2, 4, 6]
        np.testing.assert_allclose(np.array(run["values"]["alpha"], float), history.alpha().to_numpy(), rtol=1e-3)
        for layer, name in enumerate(data["layers"]):
            low, high = data["ends"][layer]
            for step, packed in zip(run["steps"], run["esds"], strict=True):
                number, *counts = packed[layer]
                evals = np.log10(history.spectrum(step, name).eigenvalues)
                assert number == len(evals)
                assert sum(counts) == ((evals >= low) & (evals <= high)).sum() >= 0.9 * number


def test_seeds_share_a_curve_and_a_card(runs):
    data = runs_data(runs)
    curves = {curve["name"]: curve for curve in data["curves"]}
    assert [line["label"] for line in curves["loss"]["lines"]] == ["p = 0, 2 runs", "p = 1/2, 2 runs"]
    assert all(value is not None for value in curves["loss"]["lines"][0]["low"])
    assert [line["middle"] for line in curves["p"]["lines"]] == [[0.0] * 4, [0.5] * 4]
    assert len(curves["lr"]["lines"]) == 1
    assert data["cards"] == [0, 2]
    assert "p = 0" in data["verdict"][0]["text"]
    assert data["texts"]["power"] == ["0", "0", "0.5", "0.5"]


def test_cards_and_curves_have_the_same_order_and_so_the_same_colours(runs):
    turned = Runs({label: runs[label] for label in reversed(list(runs))}, named=False)
    data = runs_data(turned)
    assert [line["label"] for line in data["curves"][0]["lines"]] == ["p = 0, 2 runs", "p = 1/2, 2 runs"]
    assert [data["runs"][card]["label"].split(",")[0] for card in data["cards"]] == ["p = 0", "p = 1/2"]


def test_named_runs_have_a_card_each_as_they_have_a_curve_each(runs):
    data = runs_data({f"mine {number}": history for number, history in enumerate(runs.values())})
    assert len(data["curves"][0]["lines"]) == len(data["cards"]) == 4


def test_one_run_has_its_last_layers_as_rows(runs):
    history = next(iter(runs.values()))
    data = runs_data({"one": history})
    assert data["kind"] == "history"
    last = history.details[history.details["step"] == 6]
    assert data["texts"]["name"] == list(last["name"])
    assert data["numbers"]["alpha"] == list(last["alpha"])
    assert "step 6" in data["lead"]


def test_a_long_run_shows_some_of_its_steps_and_says_so(runs, monkeypatch):
    monkeypatch.setattr(page_of_runs, "MAX_SPECTRA", 24)
    data = runs_data(runs)
    assert [run["steps"] for run in data["runs"]] == [[0, 2, 6]] * 4
    assert [
        "steps",
        "4 captures are not in this page, which shows some of each run; htsr.History has all of them",
    ] in data["foot"]


def test_a_run_without_a_capture_is_refused_and_one_beside_others_is_not(runs, tmp_path):
    htsr.Monitor(nn.Linear(20, 20), run_dir=tmp_path / "empty").close()
    for capture in (tmp_path / "empty" / "captures").iterdir():
        capture.unlink()
    empty = htsr.History(tmp_path / "empty")
    with pytest.raises(htsr.InputError, match="nothing captured yet"):
        runs_page({"empty": empty})
    both = runs_data({"empty": empty, "full": next(iter(runs.values()))})
    assert [run["label"] for run in both["runs"]] == ["full"]
