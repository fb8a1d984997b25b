"""What the page of a large model must keep: its size, and its speed on the page's own clock."""

import time

import numpy as np
import pytest

import htsr
from htsr.report import analysis_page, runs_page
from tests.report.browser.measures import frames_per_second, milliseconds_to_open, milliseconds_to_show
from tests.report.browser.pages import heavy, large_page, layer_names, long_run

pytestmark = pytest.mark.slow


def test_a_page_of_200_layers(tmp_path, open_page):
    text = large_page(200)
    assert len(text.encode()) < 3_000_000
    page = open_page(text)
    assert milliseconds_to_open(page) < 1000
    page.evaluate("change({ all: true })")
    openings = [
        (f'tr[data-row="{row}"] button.name', f'tr[data-row="{row}"] + tr.panel canvas')
        for row in (3, 60, 100, 140, 190)
    ]
    assert milliseconds_to_show(page, openings) < 100


def test_a_page_of_200_layers_is_written_in_ten_seconds():
    draw = np.random.default_rng(0)
    analysis = htsr.analyze({name: heavy(draw, 3, (64, 48)) for name in layer_names(200)}, progress=False)
    start = time.perf_counter()
    analysis_page(analysis)
    assert time.perf_counter() - start < 10


def test_a_page_of_2000_layers(open_page):
    text = large_page(2000)
    assert len(text.encode()) < 10_000_000
    assert len(open_page(text).query_selector_all("tr[data-row]")) == 300


def test_the_slider_moves_at_30_frames_a_second(tmp_path, open_page):
    long_run(tmp_path / "run", 200, 30)
    text = runs_page({"run": htsr.History(tmp_path / "run")})
    assert len(text.encode()) < 3_000_000
    page = open_page(text)
    assert milliseconds_to_open(page) < 1000
    assert frames_per_second(page, "#step") > 30
