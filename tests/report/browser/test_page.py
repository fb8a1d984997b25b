"""The page of an analysis in a browser: the table, its filter, layers, cards, pictures, tooltips, themes, widths, keyboard."""

import csv
import io
import json
import math
from html import escape

import pytest

import htsr
from htsr.audit.conditions import Condition
from htsr.report import analysis_page
from htsr.text import visible
from tests.report.browser.checks import axe_faults, download, page_faults, tab_stops
from tests.report.browser.pages import HOSTILE, weights

NOISE, HEAVY = "model.layers.0.mlp.up_proj", "model.layers.0.self_attn.o_proj"


@pytest.fixture(scope="module")
def analysis():
    return htsr.analyze(weights(), bootstrap=20, progress=False)


@pytest.fixture(scope="module")
def html(analysis, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "analysis.html"
    path.write_text(analysis_page(analysis), encoding="utf-8")
    return path


def texts(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "all => all.map((e) => e.textContent)")


def rows(page) -> list[str]:
    return texts(page, "tr[data-row] button.name")


def cells(page, column: str) -> list[str]:
    at = texts(page, "thead th").index(next(t for t in texts(page, "thead th") if t.split(" ")[0] == column))
    return texts(page, f"tr[data-row] > :nth-child({at + 1})")


def names(analysis) -> list[str]:
    return [visible(name, 1000) for name in analysis.details["name"]]


def point(page, panel: int, number: int) -> dict[str, float]:
    """Return where a point of a panel by depth lies in the window."""
    return page.evaluate(
        """([panel, number]) => {
          const host = document.querySelectorAll(".depth .chart")[panel], { u } = charts.get(host);
          host.scrollIntoView({ block: "center" });
          const { left, top } = u.over.getBoundingClientRect();
          return { x: left + u.valToPos(u.data[0][number], "x"), y: top + u.valToPos(u.data[1][number], "y") };
        }""",
        [panel, number],
    )


def opened(page) -> str | None:
    found = texts(page, "tr.panel h3 > span")
    return found[0] if found else None


def test_every_cell_is_the_printed_number(analysis, html, open_page):
    """Every cell of the table, and every number of an opened panel."""
    page = open_page(html)
    page.evaluate("change({ columns: choosable.map(({ name }) => name) })")
    assert rows(page) == [names(analysis)[row] for row in page.evaluate("page.places.order")]
    order = page.evaluate("page.places.order")
    shown = [text.split(" ")[0] for text in texts(page, "thead th")][1:]
    assert len(shown) > 30
    for name in shown:
        column = analysis.columns[name]
        assert cells(page, name) == [
            visible(column.text(value), 1000) for value in analysis.details[name].iloc[order]
        ], name
    for layer in (NOISE, "flat", HOSTILE[0]):
        row = names(analysis).index(visible(layer, 1000))
        page.evaluate("(row) => openRow(row)", row)
        found = dict(zip(texts(page, ".cells dt"), texts(page, ".cells dd b"), strict=True))
        expected = {
            name: visible(column.text(analysis.details[name].iloc[row]), 1000)
            for name, column in analysis.columns.items()
        }
        assert found == {name: text for name, text in expected.items() if text and name in found}
        assert {"alpha", "D", "xmin"} <= set(found) or layer == "flat"
        meaning = analysis.columns["N"].meaning
        assert f"{expected['N']} {meaning}" in texts(page, ".cells dd")


def test_sorting(analysis, html, open_page):
    page = open_page(html)
    for column, key in (("alpha", float), ("phase", None)):
        header = page.locator(f'th[data-column="{column}"]')
        seen = set()
        for _ in range(2):
            header.locator("button").click()
            state = header.get_attribute("aria-sort")
            seen.add(state)
            values = [key(value) if key else value for value in cells(page, column) if value]
            assert values == sorted(values, reverse=state == "descending")
            assert len(values) == [*cells(page, column), ""].index("")  # what is missing comes last
            assert page.evaluate("document.activeElement.textContent").startswith(column)
        assert seen == {"ascending", "descending"}
    assert page.locator("th[aria-sort]").count() == 1
    page.click("text=worst first")
    ranked = list(dict.fromkeys(visible(f.name, 1000) for f in analysis.ranked_findings()))
    assert rows(page)[: len(ranked)] == ranked


CONDITIONS = (
    "alpha > 2", "not alpha > 2", "2 < alpha < 6", "alpha >= 2 and phase == 'random-like'", "alpha > 6 or status == 'failed'",
    "not (alpha > 2 and stable_rank > 5)", "phase in ('random-like', \"heavy-tailed\")", "phase not in ['undecided']",
    "warning == 'over-trained'", "warning != ''", "not 100 < N < alpha", "not (alpha < N < 10)", "alpha > median(alpha)",
    "alpha <= mean(alpha) or N == max(N)", "min(alpha) == alpha", "name == '=1+1'", "alpha > -1e3",
    "N in (96, 24) and not M == 16", "alpha > 2 and alpha > 3 or alpha < 1.5", "not not alpha > 2", "6 > alpha != 2", ".5 < D",
    "reason != ''", "N not in (96,)",
)  # fmt: skip


def test_the_filter_agrees_with_conditions(analysis, html, open_page):
    page = open_page(html)
    for text in CONDITIONS:
        kept = page.evaluate("(text) => page.places.order.filter(parseFilter(text))", text)
        expected = Condition(text).check(analysis.details).names
        assert {analysis.details["name"].iloc[row] for row in kept} == set(expected), text
    page.fill("#filter", "*.o_proj embed alpha > 1.7")
    kept = {name for name in Condition("alpha > 1.7").check(analysis.details).names if name.endswith("o_proj")}
    assert set(rows(page)) == kept
    assert page.inner_text("p[role=status]") == f"{len(kept)} of {len(analysis)} rows"
    for glob, matching in (
        ("O_PROJ", 2),
        ("model.layers.[!0].*", 5),
        ("x?x*x", 1),
        ("embed flat", 2),
        ("*q_proj 1+1", 3),
    ):
        page.fill("#filter", glob)
        assert len(rows(page)) == matching, glob
    page.fill("#filter", "")
    assert len(rows(page)) == len(analysis)


ERRORS = (
        ("alpha >", "not complete"), ("alhpa > 3", "no column “alhpa”"), ("alpha > 'x'", "number cannot be compared with a text"),
        ("alpha", "expected a comparison"), ("(alpha > 2", "expected “)”"), ("alpha > 2 alpha", "expected and, or"),
        ("phase > 3", "cannot be compared"), ("alpha in (1", "expected “)”"), ("alpha > 2 and", "not complete"),
        ("alpha > 2 $", "cannot be read"), ("x[ alpha > 2", "regular expression"),
)  # fmt: skip


def test_the_filter_says_what_it_cannot_read(html, open_page, analysis):
    page = open_page(html)
    for text, message in ERRORS:
        page.fill("#filter", text)
        assert message in page.inner_text("p.error[role=status]"), text
        assert len(rows(page)) == len(analysis)


def test_groups_and_columns(analysis, html, open_page):
    page = open_page(html)
    group = page.get_by_label("group by")
    group.select_option("block")
    assert set(texts(page, "tr.group th")) == {"model.layers.0 (5)", "model.layers.1 (5)", "no block (14)"}
    group.select_option("role")
    assert {"q (2)", "up (2)"} <= set(texts(page, "tr.group th"))
    group.select_option("phase")
    counts = analysis.details["phase"].value_counts()
    assert set(texts(page, "tr.group th")) == {f"{phase} ({count})" for phase, count in counts.items()}
    group.select_option("nothing")
    page.click("summary:has-text('columns')")
    page.check("input[value=sigma]")
    page.uncheck("input[value=alpha]")
    shown = [text.split(" ")[0] for text in texts(page, "thead th")]
    assert "sigma" in shown
    assert "alpha" not in shown


def test_downloads_are_what_is_shown_in_full_precision(analysis, html, open_page):
    page = open_page(html)
    page.evaluate("change({ columns: ['alpha', 'N', 'phase', 'xmin'], sort: 'alpha', up: true })")
    page.fill("#filter", "alpha > 0 or N > 0")
    details = analysis.details.set_index(analysis.details["name"].map(lambda name: visible(name, 1000)))
    file, text = download(page, "button:text-is('JSON')")
    assert file.endswith(".json")
    records = json.loads(text)
    assert [record["name"] for record in records] == rows(page)
    file, text = download(page, "button:text-is('CSV')")
    assert file.endswith(".csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert len(table) == len(records) == len(analysis)
    for record, line in zip(records, table, strict=True):
        name = record["name"]
        assert line["name"] == (f"'{name}" if name[0] in "=+-@" else name)
        for column in ("alpha", "N", "xmin"):
            value = details.loc[name, column]
            if math.isnan(value):
                assert (record[column], line[column]) == (None, "")
            else:
                assert record[column] == float(line[column]) == value
        assert record["phase"] == line["phase"] == details.loc[name, "phase"]


def test_a_layer_opens_by_click_card_point_keyboard_and_address(analysis, html, open_page):
    page = open_page(html)
    page.click(f"tr[data-row] >> text='{HEAVY}'")
    assert opened(page) == HEAVY
    assert page.evaluate("location.hash") == f"#layer={HEAVY}"
    assert texts(page, "tr.panel .caption") == [
        "Spectrum (ESD)", "Choice of xmin: D", "Choice of xmin: alpha", "Tail against its law (QQ)",
    ]  # fmt: skip
    assert page.locator("tr.panel .uplot canvas").count() == 4
    page.keyboard.press("Enter")  # the focus is on the name
    assert opened(page) is None
    assert page.evaluate("document.activeElement.textContent") == HEAVY
    page.keyboard.press("Enter")
    assert opened(page) == HEAVY
    page.click(".card >> nth=0")
    assert opened(page) == texts(page, ".card b")[0]
    place = point(page, 1, 0)
    page.mouse.move(**place)
    hovered = page.inner_text("#tip b")
    page.mouse.click(**place)
    assert opened(page) == hovered
    assert f"alpha {analysis.columns['alpha'].text(analysis[hovered].row['alpha'])}" in page.evaluate("tip.textContent")
    for name in HOSTILE:
        shown = visible(name, 1000)
        page.evaluate("(name) => { location.hash = `layer=${encodeURIComponent(name)}`; }", shown)
        page.wait_for_function(
            "(name) => document.querySelector('tr.panel h3 > span')?.textContent === name", arg=shown
        )
        page.evaluate("document.querySelector('tr.panel h3 a').click()")
        assert opened(page) == shown
    page.evaluate("location.hash = 'layer=%zz'")
    fresh = open_page(html, fragment=page.evaluate("addressOf(page.texts.name.indexOf('=1+1')).slice(1)"))
    assert opened(fresh) == "=1+1"
    assert fresh.locator("img, script").count() == 3  # the data and two scripts; no name has become an element


def test_the_verdict_says_what_is_noise_and_filters_the_table(analysis, html, open_page):
    page = open_page(html)
    assert visible(NOISE) in " ".join(texts(page, ".verdict li"))
    assert "What “" in page.inner_text(".meaning")
    fold = page.evaluate("document.querySelector('.depth').getBoundingClientRect().top")
    assert fold < 800
    kinds = {f.kind for f in analysis.ranked_findings()}
    linked = [sentence for sentence in analysis.sentences() if kinds & set(sentence.kinds)]
    for sentence, link in zip(linked, page.locator(".verdict a").all(), strict=True):
        link.click()
        expected = {visible(f.name, 1000) for f in analysis.ranked_findings() if f.kind in sentence.kinds}
        assert set(rows(page)) == expected
    page.click(".chip")
    assert len(rows(page)) == len(analysis)
    page.evaluate("change({ kinds: ['noise'] })")
    page.click(".card >> nth=-1")  # a row that the table does not show at the moment
    assert opened(page) == texts(page, ".card b")[-1]


def test_tooltips(html, open_page):
    page = open_page(html)
    word = page.locator(".words .term", has_text="noise").first
    word.hover()
    assert "Marchenko-Pastur" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert not page.is_visible("#tip")
    word.focus()
    assert "Marchenko-Pastur" in page.inner_text("#tip")
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    page.keyboard.press("Tab")
    assert page.inner_text("#tip") != ""
    page.locator("#filter").focus()
    assert not page.is_visible("#tip")
    page.locator('th[data-column="alpha"] button').hover()
    assert "exponent of the power law" in page.inner_text("#tip")


def test_themes(html, open_page):
    page = open_page(html)
    look = """() => [getComputedStyle(document.body).backgroundColor, document.querySelector(".depth canvas").toDataURL()]"""
    paper, drawn = page.evaluate(look)
    page.click(".switch")
    other, redrawn = page.evaluate(look)
    assert (paper, other) == ("rgb(255, 255, 255)", "rgb(20, 24, 31)")
    assert drawn != redrawn
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(look) == [other, redrawn]
    page.click(".switch")
    assert page.evaluate(look) == [paper, drawn]  # what the reader chose stays
    fresh = open_page(html, theme="dark")
    assert fresh.evaluate(look) == [other, redrawn]
    fresh.emulate_media(color_scheme="light")
    fresh.wait_for_function("() => document.querySelector('.switch').textContent === 'Dark theme'")
    assert fresh.evaluate(look) == [paper, drawn]


@pytest.mark.parametrize(
    ("width", "theme"), [(400, "dark"), (2000, "light"), pytest.param(1280, "dark", marks=pytest.mark.slow)]
)
def test_widths(html, open_page, width, theme):
    page = open_page(html, width=width, theme=theme)
    table = "() => { const e = document.querySelector('.scroll'); return [e.scrollWidth, e.clientWidth]; }"
    wide, room = page.evaluate(table)
    assert wide <= room
    assert "alpha" in texts(page, "thead th")
    page.click(f"tr[data-row] >> text='{HEAVY}'")
    assert page_faults(page) == []
    wide, room = page.evaluate(table)
    assert wide <= room
    page.set_viewport_size({"width": 700, "height": 800})
    page.wait_for_function("() => document.querySelector('.depth .uplot').clientWidth < 700")
    wide, room = page.evaluate(table)
    assert wide <= room


def test_two_labels_on_every_axis(html, open_page):
    page = open_page(html, fragment=f"layer={HEAVY}")
    found = page.evaluate("""() => {
      const labels = [];
      for (const [low, high] of [[0, 3], [0.01, 0.05], [-6, 9], [0.31, 0.46], [2.2, 3.6], [-300, 300]])
        for (const room of [2, 4, 8, 20]) labels.push([low, high, room, new Set(logTicks(low, high, room).map(logLabel)).size]);
      return labels;
    }""")
    assert [case for case in found if case[-1] < 2] == []
    assert [case for case in found if case[-1] > case[-2] + 2] == []


def test_keyboard_only(html, open_page):
    page = open_page(html)
    stops, faults = tab_stops(page, limit=70)
    assert faults == []
    kinds = [stop.split(" ")[0] for stop in stops]
    order = [
        "button.switch",
        "a",
        "button.term",
        "button.card",
        "input#filter",
        "select",
        "summary",
        "div.scroll",
        "button.name",
    ]
    first = [next(i for i, kind in enumerate(kinds) if kind.startswith(name)) for name in order]
    assert first == sorted(first), stops
    assert axe_faults(page) == []


def test_print(html, open_page):
    page = open_page(html, width=700, media="print", fragment=f"layer={HEAVY}")
    assert not page.is_visible(".tools")
    assert not page.is_visible(".switch")
    assert page_faults(page) == []


def test_in_the_frame_of_a_notebook(html, open_page):
    """A sandboxed frame has no address of its own, and a link would open the notebook in it."""
    source = escape(html.read_text(encoding="utf-8"))
    sandbox = 'sandbox="allow-scripts allow-downloads"'
    page = open_page(
        f'<!doctype html><h1>notebook</h1><iframe srcdoc="{source}" {sandbox} width=900 height=600></iframe>'
    )
    frame = page.frames[1]
    frame.wait_for_selector(".card")
    frame.click(".card >> nth=0")
    assert opened(frame) == texts(frame, ".card b")[0]
    assert frame.locator("tr.panel a").count() == 0
    frame.click(".verdict a >> nth=0")
    assert frame.locator(".chip").count() == 1
    assert frame.url == "about:srcdoc"
