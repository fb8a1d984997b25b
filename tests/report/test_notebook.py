"""What a notebook shows: sentences whole, pictures inline, nothing that a stranger's name could run."""

import numpy as np
import pytest
import torch
from markupsafe import escape

import htsr
from htsr.report.sparkline import HEIGHT, WIDTH, esd_sparkline, line_sparkline

STRANGE = "<img src=x onerror=alert(1)>"


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "noise": rng.normal(size=(128, 128)),
        "conv": rng.normal(size=(24, 16, 3, 3)),
        STRANGE: rng.normal(size=(60, 40)),
    }


@pytest.fixture(scope="module")
def analysis():
    return htsr.analyze(weights())


def test_an_analysis(analysis):
    shown = analysis._repr_html_()
    assert f"<b>{escape(analysis.verdict_sentences()[0])}</b>" in shown
    assert shown.count("<svg") == 3
    assert ">rf</th>" in shown
    assert "<img" not in shown


def test_of_many_layers_the_worst_are_shown():
    a = htsr.analyze(
        {f"layer{i}": weights(i)["noise"][:40, :40] for i in range(61)} | {"bad": np.full((20, 20), np.nan)}
    )
    shown = a._repr_html_()
    assert "The 20 worst of 62 layers" in shown
    assert shown.count("<tr>") == 21
    body = shown[shown.index("<tbody>") :]
    assert body.index(">bad<") < body.index(">layer")


def test_a_layer_a_fit_and_a_bulk(analysis):
    layer = analysis["noise"]
    shown = layer._repr_html_()
    assert layer.findings[0].text in shown
    assert "<svg" in shown
    assert "standard error of alpha at this xmin" in shown
    assert f"alpha = {layer.fit.alpha:.2f}" in layer.fit._repr_html_()
    assert "no eigenvalue lies above" in layer.bulk._repr_html_()
    broken = htsr.analyze({"w": np.full((20, 20), np.nan)})["w"]
    assert "No power-law fit: non-finite (400 of 400)." in broken.fit._repr_html_()
    assert "<svg" not in broken._repr_html_()


def test_a_comparison(analysis):
    changed = weights() | {"noise": weights()["noise"] + np.outer(np.ones(128), np.ones(128))}
    c = htsr.compare(weights(), changed)
    assert escape(c.verdict_sentences()[0]) in c._repr_html_()
    assert "<img" not in c._repr_html_()
    assert c["noise"]._repr_html_().count("<tr>") == 3


def test_a_run(tmp_path):
    net = torch.nn.Linear(40, 30)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with htsr.Monitor(net, optimizer, every=1, run_dir=tmp_path / "run") as monitor:
        for step in range(3):
            net(torch.ones(1, 40)).sum().backward()
            optimizer.step()
            monitor.record(loss=3.0 - step)
        shown = monitor._repr_html_()
    assert "step=3" in shown
    assert "htsr.History" in shown
    shown = htsr.History(tmp_path / "run")._repr_html_()
    assert "3 to 1" in shown
    assert shown.count("<polyline") == 2


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [2.0, 2.0, 2.0]])
def test_no_picture_where_there_is_nothing_to_draw(values):
    assert esd_sparkline(values) == ""


def test_a_sparkline_stays_in_its_box_and_marks_the_tail():
    evals = np.geomspace(1, 100, 200)
    shown = esd_sparkline(evals, xmin=10.0)
    bulk, tail = shown.split("<path")[1:]
    assert 10 < bulk.count("M") < 16
    assert 10 < tail.count("M") < 16
    assert "nan" not in shown
    points = line_sparkline([3.0, float("nan"), 1.0], "loss").split('points="')[1].split('"')[0]
    xy = np.array([[float(v) for v in p.split(",")] for p in points.split()])
    assert (xy >= 0).all()
    assert (xy <= (WIDTH, HEIGHT)).all()
    assert xy[0, 1] < xy[-1, 1]
