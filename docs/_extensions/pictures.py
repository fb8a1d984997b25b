"""Run the code of pages that show pictures, and put each picture below the code that draws it, in light and in dark."""

import ast
import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.application import Sphinx

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
PAGES = ("plots",)
STYLES = {"light": "default", "dark": "dark_background"}
CODE = re.compile(r"^```python\n(.*?)^```\n", flags=re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", flags=re.MULTILINE)
NAME = re.compile(r"^\*\*(.+?)\*\*", flags=re.MULTILINE)  # what a paragraph is about
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
        above = text[: match.start()]
        heading = HEADING.findall(above)[-1]
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        label = (NAME.findall(above[above.rindex(heading) :]) or [heading])[-1].rstrip(".")
        lines = []
        for pair in zip(*next(blocks), strict=True):
            for style, file in zip(STYLES, pair, strict=True):
                shown = [f"```{{image}} pictures/{file}", f":class: only-{style}", f":alt: {label}"]
                lines += [*shown, "```"]
                small.extend([*shown, f':target: "#{anchor}"', "```"])
        return match[0] + "\n" + "\n".join(lines) + "\n"

    text = CODE.sub(with_pictures, text)
    source[0] = text.replace(PLACE, "\n".join(["````{container} gallery", *small, "````"]))


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
            figures = figures_of(block, namespace)
            found.append([f"{prefix}-{number:02d}-{k}.png" for k in range(len(figures))])
            for figure, name in zip(figures, found[-1], strict=True):
                figure.savefig(folder / name, dpi=DPI, bbox_inches="tight")
            plt.close("all")
    return found


def figures_of(block: str, namespace: dict[str, object]) -> list["Figure"]:
    """Run a block and return the figures that its expressions gave, or that it opened, each once."""
    import matplotlib.pyplot as plt

    from htsr.plots import figure_of

    before = set(plt.get_fignums())
    figures: dict[int, Figure] = {}
    for statement in ast.parse(block).body:
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), "example", "exec"), namespace)
            continue
        value = eval(compile(ast.Expression(statement.value), "example", "eval"), namespace)
        with contextlib.suppress(AttributeError, TypeError, IndexError, KeyError):  # most expressions are no picture
            figure = value if hasattr(value, "savefig") else figure_of(value)
            figures.setdefault(id(figure), figure)
    for number in sorted(set(plt.get_fignums()) - before):
        figures.setdefault(id(plt.figure(number)), plt.figure(number))
    return list(figures.values())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", add_pictures, priority=900)
    return {"parallel_read_safe": True}
