"""Pages hold the numbers, the failures and the skipped tensors, whole and reproducible."""

import math

import pytest
import torch
from torch import nn

import htsr
from htsr.report import analysis_page, comparison_page
from htsr.report.page.analysis import analysis_data
from htsr.report.page.comparison import comparison_data


@pytest.fixture(scope="module")
def analysis():
    torch.manual_seed(0)
    return htsr.analyze(nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 1)), bootstrap=20)


@pytest.fixture(scope="module")
def comparison():
    torch.manual_seed(0)
    a = {"<b>moved</b>": torch.randn(60, 40), "still": torch.randn(60, 40), "bad": torch.full((60, 40), float("nan"))}
    b = a | {"<b>moved</b>": torch.randn(60, 40), "<i>new</i>": torch.randn(9, 9), "bias": torch.zeros(3)}
    return htsr.compare(a, b)


@pytest.mark.parametrize("kind", ["analysis", "comparison"])
def test_every_cell_is_that_of_details(request, kind):
    result = request.getfixturevalue(kind)
    data = analysis_data(result) if kind == "analysis" else comparison_data(result)
    assert [column["name"] for column in data["columns"] if not column["meaning"]] == []
    for column in data["columns"]:
        name, known = column["name"], result.columns[column["name"]]
        assert data["texts"][name] == [known.text(value) for value in result.details[name]]
        if column["numeric"]:
            for shown, value in zip(data["numbers"][name], result.details[name].astype("float64"), strict=True):
                assert shown == value if math.isfinite(value) else shown is None
    left_out = set(result.columns) - set(data["texts"])
    assert all(
        result.details[name].isna().all() or (result.details[name] == "").all() for name in left_out - {"longname"}
    )


def test_an_analysis_tells_failures_skipped_tensors_and_its_origin(analysis, read_page):
    data = read_page(analysis_page(analysis))
    assert data["notes"][1].startswith("failed: 1 distinct positive values")
    assert data["skipped"] == [["0.bias", "40", "1-D: not a matrix"], ["1.bias", "1", "1-D: not a matrix"]]
    foot = dict(data["foot"])
    assert foot["settings"] == "bootstrap=20; convention htsr"
    assert f"htsr {htsr.__version__}" in foot["made"]
    assert [sentence["text"] for sentence in data["verdict"]] == analysis.verdict_sentences()
    assert {finding["text"] for finding in data["findings"]} == {finding.text for finding in analysis.ranked_findings()}


def test_a_file_is_told_by_its_hash(tmp_path, read_page):
    torch.save({"w": torch.randn(20, 10)}, tmp_path / "m.pt")
    foot = dict(read_page(analysis_page(htsr.analyze(tmp_path / "m.pt")))["foot"])
    assert foot["m.pt"].startswith("BLAKE2b ")


def test_same_result_same_bytes(analysis, comparison):
    assert analysis_page(analysis) == analysis_page(analysis)
    assert comparison_page(comparison) == comparison_page(comparison)


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ({"w": torch.zeros(30, 20)}, "No matrix has a power-law fit; 1 of 1 has lost rank: w."),
        ({"w": torch.full((30, 20), float("nan"))}, "No matrix has a power-law fit; 1 could not be used: w."),
        ({"v": torch.zeros(3)}, "There is no weight matrix."),
    ],
)
def test_an_analysis_without_any_fit(source, verdict, read_page):
    data = read_page(analysis_page(htsr.analyze(source)))
    assert data["verdict"][0]["text"] == verdict
    assert data["lead"] == ""
    assert data["metric"] == "stable_rank"


def test_a_comparison_shows_what_changed_most_and_what_has_no_partner(comparison, read_page):
    data = read_page(comparison_page(comparison))
    assert data["cards"] == [0]
    assert set(data["pictures"][0]) == {"a", "b", "delta"}
    assert data["notes"][2] == "failed: A: non-finite (2400 of 2400); B: non-finite (2400 of 2400)"
    assert ["<i>new</i> (b only)", "9 x 9", "without a partner: no such name in A"] in [
        [name.replace("(B only)", "(b only)"), *rest] for name, *rest in data["skipped"]
    ]
    assert any(reason == "1-D: not a matrix" for _, _, reason in data["skipped"])


@pytest.mark.parametrize("weight", [torch.zeros(30, 20), torch.full((30, 20), float("nan"))])
def test_a_comparison_without_numbers(weight, read_page):
    data = read_page(comparison_page(htsr.compare({"w": weight}, {"w": weight.clone()})))
    assert data["facts"][0] == "1 layer in both"
    assert data["cards"] == []


def test_a_notebook_shows_the_page_in_a_sandbox(analysis):
    shown = analysis.show(height=500)._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert 'sandbox="allow-scripts allow-downloads"' in shown
    assert "allow-same-origin" not in shown
    assert "height: 500px" in shown
    with pytest.raises(ValueError, match="at least 200 pixels, got 3"):
        analysis.show(height=3)
