"""Pages in headless Chromium: one browser for this folder, and for each page a profile of its own."""

import os
import re
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOCAL = ("file:", "data:", "blob:", "about:")


@pytest.fixture(scope="package")
def browser():
    """Chromium, until the last test of this folder: while it runs, no other test could start an event loop."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Opener:
    """Opens pages, and keeps what went wrong in them.

    Attributes:
        troubles: Errors and warnings of the console, which include what the content security policy blocked;
            exceptions that nothing caught; requests that left the machine.
    """

    def __init__(self, browser, folder: Path, test: str):
        self.troubles: list[str] = []
        self._browser, self._folder = browser, folder
        self._test = re.sub(r"\W+", "-", test).strip("-")
        self._pages = []

    def __call__(self, source, *, width=1280, height=800, theme="light", media="screen", fragment=""):
        """Return a page of Playwright that shows a file, or HTML, after its load event.

        Args:
            source: A path, or the text of a page.
            width: Of the window, in CSS pixels.
            height: Of the window, in CSS pixels.
            theme: What ``prefers-color-scheme`` says: ``"light"`` or ``"dark"``.
            media: ``"screen"``, or ``"print"`` for the look on paper.
            fragment: What follows ``#`` in the address.
        """
        if isinstance(source, str):
            text, source = source, self._folder / f"page-{len(self._pages)}.html"
            source.write_text(text, encoding="utf-8")
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.set_default_timeout(5000)
        page.emulate_media(media=media)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.troubles.append(f"exception: {error}"))
        page.on("request", lambda request: request.url.startswith(LOCAL) or self.troubles.append(request.url))
        self._pages.append((page, f"{width}-{theme}"))
        page.goto(Path(source).absolute().as_uri() + (f"#{fragment}" if fragment else ""))
        return page

    def _hear(self, message):
        if message.type in {"error", "warning"}:
            self.troubles.append(f"{message.type}: {message.text}")

    def shoot(self, page, name: str, *, whole=False) -> None:
        """Keep a picture of the window, or of the whole page, in the folder that ``HTSR_SCREENSHOTS`` names."""
        if folder := os.environ.get("HTSR_SCREENSHOTS"):
            page.screenshot(path=Path(folder, f"{self._test}-{name}.png"), full_page=whole)

    def close(self) -> None:
        """Keep a picture of every page as the test leaves it, and close the pages."""
        for number, (page, look) in enumerate(self._pages):
            self.shoot(page, f"{number}-{look}")
            page.context.close()


@pytest.fixture
def open_page(browser, tmp_path, request):
    """What opens a page: ``page = open_page(path, width=400, theme="dark")``. The test fails if a page had any trouble."""
    opener = Opener(browser, tmp_path, request.node.name)
    yield opener
    opener.close()
    assert opener.troubles == []
