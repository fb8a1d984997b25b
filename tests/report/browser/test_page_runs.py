"""The pages of runs, of one run and of a comparison in a browser."""

import json

import pytest

import htsr
from htsr.report import comparison_page, runs_page
from htsr.text import visible
from htsr.training.store.files import EVENTS
from tests.report.browser.checks import page_faults, tab_stops
from tests.report.browser.pages import changed, train, weights
from tests.report.browser.test_page import opened, rows, texts

SLIDE = """(at) => {
  const slider = document.querySelector("#step");
  slider.value = at;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""
MARKED = """() => [...document.querySelectorAll(".figures canvas")].map((canvas) => canvas.toDataURL())"""
# what the first chart, the spectrum at the step, draws for its n-th run
DRAWN = "(n) => charts.get(document.querySelector('.chart')).u.data[n]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two powers with two seeds each; the first run has skipped a capture."""
    folder = tmp_path_factory.mktemp("runs")
    for power in (0.0, 0.5):
        for seed in (0, 1):
            train(folder / f"p{power}-{seed}", power, seed)
    event = {"step": 4, "kind": "skipped", "message": "the worker </script> was busy"}
    with (folder / "p0.0-0" / EVENTS).open("a") as file:
        file.write(json.dumps(event) + "\n")
    return htsr.History.load_many(folder)


@pytest.fixture(scope="module")
def comparison():
    return htsr.compare(weights(), changed(weights()), progress=False)


@pytest.fixture(scope="module")
def pages(runs, comparison, tmp_path_factory):
    """A file for each kind of page."""
    folder = tmp_path_factory.mktemp("pages")
    first = {"one": next(iter(runs.values()))}
    made = {"runs": runs_page(runs), "one": runs_page(first), "comparison": comparison_page(comparison)}
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


def test_the_slider_moves_cards_spectra_and_marks(runs, pages, open_page):
    page = open_page(pages["runs"])
    seen = []
    for at, step in ((0, 0), (3, 6), (1, 2)):
        page.evaluate(SLIDE, at)
        assert page.inner_text("output") == f"step {step}"
        values = texts(page, ".card .value")
        for title, value in zip(texts(page, ".card b"), values, strict=True):
            history = next(run for label, run in runs.items() if runs.legend[label] == title)
            median = history.alpha().loc[step].median()
            assert f"median alpha {median:.3g}" in value
        shapes = page.eval_on_selector_all(".card .sparkline", "all => all.map((e) => e.innerHTML)")
        seen.append((values, shapes, page.evaluate(DRAWN, 1), page.evaluate(MARKED)))
    for part in range(3):
        assert seen[0][part] != seen[1][part] != seen[2][part]
    curves = [marked[-5:] for *_, marked in seen]
    assert all(a != b for a, b in zip(curves[0], curves[1], strict=True))


def test_the_slider_by_keyboard_and_play(pages, open_page):
    page = open_page(pages["one"])
    assert page.inner_text("output") == "step 6"
    page.focus("#step")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("output") == "step 4"
    assert page.get_attribute("#step", "aria-valuetext") == "step 4"
    page.keyboard.press("Home")
    assert page.inner_text("output") == "step 0"
    page.click("button:text-is('Play')")
    assert page.inner_text(".player button") == "Stop"
    page.wait_for_function("() => document.querySelector('output').textContent === 'step 6'")
    page.wait_for_selector("button:text-is('Play')")
    page.click("button:text-is('Play')")
    page.click("button:text-is('Stop')")
    stopped = page.inner_text("output")
    page.wait_for_timeout(900)
    assert page.inner_text("output") == stopped


def test_layers_of_runs_and_the_heat_map(runs, pages, open_page):
    page = open_page(pages["runs"])
    assert "Spectrum of body" in texts(page, ".caption")
    page.locator("label", has_text="layer").locator("select").select_option("<b>head</b>")
    assert "Spectrum of <b>head</b>" in texts(page, ".caption")
    before = page.evaluate("document.querySelector('figure > div > canvas').toDataURL()")
    page.locator("label", has_text="heat map of").locator("select").select_option("stable_rank")
    assert page.evaluate("document.querySelector('figure > div > canvas').toDataURL()") != before
    page.locator("label", has_text="run").locator("select").select_option(index=2)
    canvas = page.locator("figure > div > canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 5)
    value = list(runs.values())[2].details.query("step == 6 and name == 'body'")["stable_rank"].item()
    assert page.inner_text("#tip") == f"body, step 6: stable_rank {float(f'{value:.3g}'):g}"
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    assert "Spectrum of body" in texts(page, ".caption")
    assert page.evaluate("document.querySelector('.tools select').selectedIndex") == 0


def test_what_p_did_is_on_the_first_screen_and_seeds_are_grouped(pages, open_page):
    page = open_page(pages["runs"])
    verdict = " ".join(texts(page, ".verdict li"))
    for words in ("median alpha", "loss", "p = 0", "p = 1/2"):
        assert words in verdict
    assert len(texts(page, ".card")) == 2
    assert page.evaluate("document.querySelector('.card').getBoundingClientRect().bottom") < 800
    loss = page.locator("figure", has=page.locator(".caption", has_text="loss"))
    assert loss.locator(".key").all_inner_texts() == ["p = 0, 2 runs", "p = 1/2, 2 runs"]
    assert {"lr", "p"} <= set(texts(page, ".caption"))
    events = [text for text in texts(page, "details li") if "the worker </script> was busy" in text]
    assert [text.startswith("step 4: p = 0, seed = 0") for text in events] == [True]
    header = [text.split(" ")[0] for text in texts(page, "thead th")]
    assert {"power", "seed", "loss"} <= set(header)
    page.fill("#filter", "power > 0.2 and seed == 1")
    assert len(rows(page)) == 1
    page.click("tr[data-row] button.name")
    assert opened(page) == rows(page)[0]


def test_one_run_opens_a_layer(pages, open_page):
    page = open_page(pages["one"], fragment="layer=%3Cb%3Ehead%3C%2Fb%3E")
    assert opened(page) == "<b>head</b>"
    captions = texts(page, "tr.panel .caption")
    assert captions[:2] == ["Spectrum of <b>head</b>", "alpha"]
    before = page.evaluate("document.querySelector('tr.panel canvas').toDataURL()")
    page.evaluate(SLIDE, 0)
    assert page.evaluate("document.querySelector('tr.panel canvas').toDataURL()") != before
    page.click(".card >> nth=0")
    assert opened(page) == texts(page, ".card b")[0]


def test_a_comparison_shows_the_most_changed_first(comparison, pages, open_page):
    page = open_page(pages["comparison"])
    size = comparison.details.set_index("name")["relative_change"]
    order = [visible(name, 1000) for name in size.sort_values(ascending=False, kind="stable").index]
    assert rows(page)[:5] == order[:5]
    assert texts(page, ".card b") == order[:4]
    assert page.get_attribute('th[data-column="relative_change"]', "aria-sort") == "descending"
    page.click(".card >> nth=1")
    assert opened(page) == order[1]
    assert texts(page, "tr.panel .caption") == ["Spectrum before and after"]
    assert texts(page, "tr.panel .key") == ["A, before", "B, after", "the change, B − A"]
    found = dict(zip(texts(page, ".cells dt"), texts(page, ".cells dd b"), strict=True))
    row = comparison.details.set_index("name").loc[order[1]]
    for name, text in found.items():
        if name != "name":
            assert text == visible(comparison.columns[name].text(row[name]), 1000), name


@pytest.mark.parametrize(
    ("kind", "width", "theme"),
    [
        ("runs", 400, "light"),
        ("comparison", 400, "dark"),
        pytest.param("runs", 1280, "dark", marks=pytest.mark.slow),
        pytest.param("one", 2000, "light", marks=pytest.mark.slow),
    ],
)
def test_no_faults_at_any_width(pages, open_page, kind, width, theme):
    page = open_page(pages[kind], width=width, theme=theme)
    page.click("tr[data-row] button.name >> nth=0")
    assert page_faults(page) == []
    wide, room = page.evaluate(
        "() => { const e = document.querySelector('.scroll'); return [e.scrollWidth, e.clientWidth]; }"
    )
    assert wide <= room
    _, faults = tab_stops(page, limit=15)
    assert faults == []
