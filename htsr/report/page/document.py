"""The one HTML file of a page: data, style and scripts inside, and a policy that lets the browser load and run nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import escape

from htsr._version import __version__

# In the order in which they build on each other.
SCRIPTS = (
    "core.js",
    "charts.js",
    "spectra.js",
    "filter.js",
    "table.js",
    "layer.js",
    "overview.js",
    "runs.js",
    "main.js",
)
VENDORED = ("uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE")


def document(page: Mapping[str, Any]) -> str:
    """Return a page as one HTML document; ``page`` holds its data as JSON knows them, ``title`` among them."""
    library, library_style, licence = (_text("vendor", name) for name in VENDORED)
    library = f"/*\n{licence}*/\n{library}"
    script = "\n".join(_text("page", name) for name in SCRIPTS)
    style = f"{library_style}\n{_text('page', 'page.css')}"
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # what a script element may not hold, in JSON's own escapes
    data = json.dumps(page, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="htsr {__version__}">
<meta name="color-scheme" content="light dark">
<title>{escape(page["title"])}</title>
<style>{style}</style>
</head>
<body>
<noscript><p>This page draws its pictures with a script that is inside it. Nothing is loaded from the network.</p></noscript>
<script type="application/json" id="data">{data}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


@cache
def _text(folder: str, name: str) -> str:
    """Return the text of a file in a folder of this package, with the line ends that its hash is made of."""
    return files("htsr.report").joinpath(folder, name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    """Return the source expression that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
