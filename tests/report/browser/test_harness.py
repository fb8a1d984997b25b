"""The checks of this folder find planted faults, and none in a page that has none."""

import base64
import hashlib

import pytest

from tests.report.browser.checks import (
    axe_faults,
    contrast_faults,
    download,
    name_faults,
    overflow_faults,
    page_faults,
    tab_stops,
)
from tests.report.browser.measures import frames_per_second, milliseconds_to_open, milliseconds_to_show
from tests.test_packaging import VENDOR

STYLE = """
:root { color-scheme: light dark; background: #fff; color: #222 }
@media (prefers-color-scheme: dark) { :root { background: #181818; color: #ddd } }
"""
SCRIPT = """
const chart = new uPlot({ width: 300, height: 150, legend: { show: false }, scales: { x: { time: false } },
  series: [{}, { stroke: "red" }] }, [[0, 1, 2], [3, 5, 4]], document.querySelector("#chart"));
document.querySelector("#step").oninput = (event) => chart.setData([[0, 1, 2], [3, Number(event.target.value), 4]]);
document.querySelector("#open").onclick = () => { document.querySelector("#panel").hidden = false; };
document.querySelector("#save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["name,alpha\\nx,3"]));
  link.download = "table.csv";
  link.click();
};
performance.mark("htsrReady");
"""
BODY = """<main><h1>Sample</h1><div id="chart" role="img" aria-label="alpha by depth"></div>
<label>Step <input id="step" type="range" max="9"></label>
<button id="open">Open</button><button id="save">CSV</button><p id="panel" hidden>a layer</p>
<svg role="img" aria-label="bar" width="80" height="30"><rect width="80" height="30" fill="#004"/>
<text y="20" fill="#fff">bar</text></svg>
<table><caption>Layers</caption><thead><tr><th scope="col">name</th></tr></thead><tr><td>q_proj</td></tr></table></main>"""


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def sample(body: str = BODY, script: str = SCRIPT) -> str:
    """A page with a chart of uPlot whose content security policy allows what is inline by hash."""
    scripts = [(VENDOR / "uPlot.iife.min.js").read_text(), script]
    styles = [(VENDOR / "uPlot.min.css").read_text(), STYLE]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(hashed, scripts))}; style-src {' '.join(map(hashed, styles))}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sample</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"{''.join(f'<style>{style}</style>' for style in styles)}<body>{body}"
        f"{''.join(f'<script>{text}</script>' for text in scripts)}</body></html>"
    )


@pytest.mark.parametrize(("width", "theme"), [(400, "light"), (2000, "dark")])
def test_a_good_page_has_no_faults(open_page, width, theme):
    page = open_page(sample(), width=width, theme=theme)
    assert page_faults(page) == []
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(24, 24, 24)" if theme == "dark" else "rgb(255, 255, 255)"
    )


def test_keyboard_and_download(open_page):
    page = open_page(sample())
    stops, faults = tab_stops(page)
    assert [stop.split("#")[1].split()[0] for stop in stops] == ["step", "open", "save"]
    assert faults == []
    assert download(page, "#save") == ("table.csv", "name,alpha\nx,3")


def test_measures_are_on_the_pages_clock(open_page):
    """A page that waits and works for a known time is measured to be at least as slow."""
    wait = SCRIPT.replace("() => { document", "() => setTimeout(() => { document").replace(
        "hidden = false; }", "hidden = false; }, 60)"
    )
    work = wait.replace("chart.setData(", "chart.setData(busy(50) ?? ")
    page = open_page(
        sample(
            script="const busy = (time) => { for (const t = performance.now() + time; performance.now() < t;); };"
            + work
        )
    )
    assert 0 < milliseconds_to_open(page, 2) < 5000
    assert 60 < milliseconds_to_show(page, [("#open", "#panel")]) < 5000
    assert 1 < frames_per_second(page, "#step", steps=6, repeats=1) < 20


PLANTED = {
    overflow_faults: [
        ("<div style='width:600px'>wide</div>", "div 'wide' ends at 608 of 400 px"),
        ("<div style='width:90px;overflow:hidden'><p style='width:150px'>x</div>", "shows 90 of its 150 px"),
    ],
    contrast_faults: [
        ("<p style='color:#777;background:#fff'>grey</p>", "has contrast 4.48"),
        ("<p style='color:rgb(0 0 0 / 30%)'>pale</p>", "has contrast 2.1"),
        ("<p style='opacity:.4'>faded</p>", "'faded' in p"),
        ("<svg><rect width='99' height='99' fill='#111'/><text y='20'>dark</text></svg>", "'dark' in text"),
        ("<svg><rect width='9' height='99' x='90'/><text y='20' fill='#aaa'>pale</text></svg>", "contrast 2.32"),
        ("<input value='x' style='color:#999'>", "has contrast 2.85"),
    ],
    name_faults: [
        ("<canvas></canvas>", "canvas '' has no accessible name"),
        ("<svg><text>x</text></svg>", "svg 'x' has no accessible name"),
        ("<table><tr><th>a</table>", "th 'a' has no scope"),
        ("<table><tr><th scope=col>a</table>", "table 'a' has no caption"),
        ("<input id=q>", "input#q '' has no label"),
    ],
    axe_faults: [("<main><h1>a</h1><button></button></main>", "Buttons must have discernible text")],
    tab_stops: [
        ("<a href=#x style='outline:0'>x</a>", "a 'x' does not show that it has the focus"),
        ("<a href=#x>x</a><a href=#y tabindex=1>y</a>", "a 'x' gets the focus after what follows it"),
    ],
}


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_planted_faults_are_found(open_page, check):
    page = open_page("<!doctype html><html lang=en><title>x</title><body></body>", width=400)
    for body, fault in PLANTED[check]:
        page.evaluate("(html) => { document.body.innerHTML = html; }", body)
        found = check(page)
        texts = found[1] if check is tab_stops else found
        assert any(fault in text for text in texts), (body, found)


def test_what_the_policy_blocks_is_a_trouble(open_page):
    image = "<img src='http://127.0.0.1:9/x.png' alt='x'>"
    open_page(sample(body=f"{BODY}<script>alert(1)</script><p style='color:red'>x</p>{image}"))
    heard = "; ".join(open_page.troubles)
    for trouble in ("Executing inline script violates", "Applying inline style violates", "x.png' violates"):
        assert trouble in heard
    open_page.troubles.clear()


def test_exceptions_and_requests_are_troubles(open_page):
    page = open_page("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>throw Error('oh')</script>")
    page.evaluate("1")
    assert "http://127.0.0.1:9/x.png" in open_page.troubles
    assert "exception: oh" in open_page.troubles
    open_page.troubles.clear()
