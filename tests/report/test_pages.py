"""Pages are whole, self-contained, escaped and reproducible."""

import re

import pandas as pd
import pytest
import torch
from torch import nn

import htsr
from htsr.report import analysis_page, comparison_page, runs_page


@pytest.fixture(scope="module")
def analysis():
    torch.manual_seed(0)
    return htsr.analyze(nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 1)))


def test_page_is_self_contained(analysis):
    page = analysis_page(analysis)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']https?:""", page)
    assert page.count("<svg") == 2


def test_page_shows_the_numbers_the_failures_and_the_skipped(analysis):
    page = analysis_page(analysis)
    assert f"{analysis.details.loc[0, 'alpha']:.2f}" in page
    assert "failed: 1 distinct positive values" in page
    assert "1-D: not a matrix" in page
    assert ">nan<" not in page
    assert "None" not in page
    assert "&lt;NA&gt;" not in page


def test_names_are_escaped():
    a = htsr.analyze({"<b>evil</b>": torch.randn(30, 20), "<i>": torch.zeros(3)})
    page = analysis_page(a)
    assert "<b>evil" not in page
    assert "&lt;b&gt;evil" in page
    assert "<b>evil" not in a._repr_html_()


def test_same_analysis_same_bytes(analysis):
    assert analysis_page(analysis) == analysis_page(analysis)


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ({"w": torch.zeros(30, 20)}, "No matrix has a power-law fit; 1 of 1 has lost rank: w."),
        ({"w": torch.full((30, 20), float("nan"))}, "No matrix has a power-law fit; 1 could not be used: w."),
        ({"v": torch.zeros(3)}, "There is no weight matrix."),
    ],
)
def test_a_page_without_any_fit(source, verdict):
    assert verdict in analysis_page(htsr.analyze(source))


def test_runs_page_escapes_its_sentences():
    page = runs_page("t", ["a < b"], pd.DataFrame({"p": ["<x>"]}), {}, ["n"])
    assert "a &lt; b" in page
    assert "<x>" not in page


@pytest.fixture(scope="module")
def comparison():
    torch.manual_seed(0)
    a = {"<b>moved</b>": torch.randn(60, 40), "still": torch.randn(60, 40), "bad": torch.full((60, 40), float("nan"))}
    b = a | {"<b>moved</b>": torch.randn(60, 40), "<i>new</i>": torch.randn(9, 9), "bias": torch.zeros(3)}
    return htsr.compare(a, b)


def test_comparison_page(comparison):
    page = comparison_page(comparison)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']https?:""", page)
    assert page.count("<svg") == 2  # the overview, and the one layer that changed
    assert f"{comparison.details.loc[0, 'alpha_b']:.2f}" in page
    assert "failed: A: non-finite (2400 of 2400); B: non-finite (2400 of 2400)" in page
    assert "no such name in A" in page
    assert "1-D: not a matrix" in page
    assert "<b>moved" not in page
    assert "<i>new" not in page
    assert "&lt;b&gt;moved" in page
    assert ">nan<" not in page
    assert "None" not in page
    assert "&lt;NA&gt;" not in page
    assert page == comparison_page(comparison)


@pytest.mark.parametrize("weight", [torch.zeros(30, 20), torch.full((30, 20), float("nan"))])
def test_a_comparison_page_without_numbers(weight):
    assert "layers in both" in comparison_page(htsr.compare({"w": weight}, {"w": weight.clone()}))


def test_columns_are_explained_with_their_units():
    W = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    page = comparison_page(htsr.compare({"w": W}, {"w": W.flip(0)}))
    assert "<dt>angle_out</dt><dd>largest principal angle between the subspaces of the outputs (degrees)</dd>" in page
    assert "<dt>overlap_out</dt><dd>mean squared cosine" in page
