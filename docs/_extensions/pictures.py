"""Run the code of pages that show pictures, and put each picture below the code that draws it, in light and in dark."""

import contextlib
import os
import re
import tempfile
from pathlib import Path

from sphinx.application import Sphinx

PAGES = ("plots",)
STYLES = {"light": "default", "dark": "dark_background"}
CODE = re.compile(r"^```python\n(.*?)^```\n", flags=re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", flags=re.MULTILINE)
PLACE = "<!-- all pictures -->"


def add_pictures(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put pictures into a page whose code draws some, and a small one of each where the page asks for them."""
    if docname not in PAGES:
        return
    text = source[0]
    folder = Path(app.srcdir) / "pictures"
    folder.mkdir(exist_ok=True)
    code = [match[1] for match in CODE.finditer(text)]
    drawn = {style: run(code, folder, f"{docname}-{style}", name) for style, name in STYLES.items()}
    small: list[str] = []
    blocks = iter(zip(*drawn.values(), strict=True))

    def with_pictures(match: re.Match[str]) -> str:
        heading = [found for found in HEADING.findall(text[: match.start()])][-1]
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        label = " ".join(re.findall(r"\*\*(.+?)\*\*", text[: match.start()])[-1:]).rstrip(".") or heading
        lines = []
        for pair in zip(*next(blocks), strict=True):
            for style, file in zip(STYLES, pair, strict=True):
                lines += [f"```{{image}} pictures/{file}", f":class: only-{style}", f":alt: {label}", "```"]
            small.extend(f"[![{label}](pictures/{file}){{.only-{style}}}](#{anchor})" for style, file in zip(STYLES, pair, strict=True))
        return match[0] + "\n" + "\n".join(lines) + "\n"

    text = CODE.sub(with_pictures, text)
    source[0] = text.replace(PLACE, "\n".join([":::{container} gallery", *small, ":::"]))


def run(blocks: list[str], folder: Path, prefix: str, style: str) -> list[list[str]]:
    """Run blocks of code one after the other, save the figures of each, and return the names of their files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = []
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch, plt.style.context(style), contextlib.ExitStack() as stack:
        stack.callback(os.chdir, here)
        os.chdir(scratch)
        namespace: dict[str, object] = {}
        for number, block in enumerate(blocks, start=1):
            exec(compile(block, f"block {number}", "exec"), namespace)
            names = []
            for k in plt.get_fignums():
                names.append(f"{prefix}-{number:02d}-{k}.png")
                plt.figure(k).savefig(folder / names[-1], dpi=110, bbox_inches="tight")
            plt.close("all")
            found.append(names)
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", add_pictures, priority=900)
    return {"parallel_read_safe": True}
