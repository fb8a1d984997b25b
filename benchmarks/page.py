"""Measure the interactive page: bytes, seconds to write it, and its speed in headless Chromium, on the page's own clock."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from provenance import table, write

import htsr
from htsr.report import runs_page

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.report.browser.measures import frames_per_second, milliseconds_to_open, milliseconds_to_show
from tests.report.browser.pages import large_page, long_run


def measure(page, name: str, seconds: float, size: int, repeats: int) -> list[object]:
    """Return the row of one page that a browser shows."""
    opening = milliseconds_to_open(page, repeats)
    rows = [number * 19 + 3 for number in range(repeats)]
    layers = [(f'tr[data-row="{row}"] button.name', f'tr[data-row="{row}"] + tr.panel canvas') for row in rows]
    frames = f"{frames_per_second(page, '#step', repeats=repeats):.0f}" if page.query_selector("#step") else ""
    return [
        name,
        f"{size / 1e6:.2f}",
        f"{seconds:.1f}",
        f"{opening:.0f}",
        f"{milliseconds_to_show(page, layers):.0f}",
        frames,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small pages, one round, no file")
    quick = parser.parse_args().quick
    from playwright.sync_api import sync_playwright

    counts, captures, repeats = ((40,), 3, 1) if quick else ((200, 2000), 30, 5)
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        long_run(Path(folder, "run"), counts[0], captures)
        makers = {f"analysis of {count} layers": lambda count=count: large_page(count) for count in counts}
        makers[f"run of {counts[0]} layers, {captures} captures"] = lambda: runs_page(
            {"run": htsr.History(Path(folder, "run"))}
        )
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, make in makers.items():
            start = time.perf_counter()
            path = Path(folder, "page.html")
            path.write_text(make(), encoding="utf-8")
            seconds = time.perf_counter() - start
            page = browser.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
            page.goto(path.as_uri())
            rows.append(measure(page, name, seconds, path.stat().st_size, repeats))
            page.close()
        browser.close()
    lines = [
        "Pages in headless Chromium, 1280 x 800 px; medians of five. Writing an analysis includes the analysis of the twenty",
        "matrices of 512 x 384 that its layers repeat. A layer: from the click to the frame that shows its panel.",
        "",
        *table(["page", "MB", "s to write", "ms to open", "ms to open a layer", "slider, frames/s"], rows),
    ]
    if quick:
        print("\n".join(lines))
    else:
        write("page.md", "\n".join(lines))


if __name__ == "__main__":
    main()
