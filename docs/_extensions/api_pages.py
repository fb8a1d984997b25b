"""Write the pages of the reference from the ``__all__`` of the public packages, one page for each group of names."""

import importlib
import importlib.util
import inspect
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock

# Packages beside htsr itself whose names people import, with what they are for. Their optional libraries are mocked.
PACKAGES = {
    "htsr.optim": "HTMuon and learning rates",
    "htsr.steering": "Steering",
    "htsr.training": "Runs and schedules of captures",
    "htsr.training.trackers": "Trackers",
    "htsr.training.lightning": "Lightning",
    "htsr.training.transformers": "Trainer of transformers",
    "htsr.plots": "Plots",
    "htsr.tails": "Tails",
    "htsr.bulk": "Noise",
    "htsr.compat": "WeightWatcher's interface",
}


def groups_of_htsr() -> dict[str, list[str]]:
    """Return the names of ``htsr.__all__`` under the comments that group them in its source."""
    text = Path(importlib.import_module("htsr").__file__ or "").read_text(encoding="utf-8")
    groups: dict[str, list[str]] = {}
    for line in text.partition("__all__ = [")[2].splitlines()[1:]:
        if line.startswith("]"):
            break
        if comment := re.match(r"\s+# (.*)", line):
            group = groups[comment[1].capitalize()] = []
        group += re.findall(r'"(\w+)"', line)
    return groups


def names_of(module: ModuleType) -> list[str]:
    """Return the public names of a module: its ``__all__``, or the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, item in vars(module).items()
        if not name.startswith("_") and getattr(item, "__module__", "") == module.__name__ and callable(item)
    ]


def groups(packages: Mapping[str, str] = PACKAGES) -> dict[str, list[str]]:
    """Return the title of each page of the reference, and the full names of what it documents."""
    found = {title: [f"htsr.{name}" for name in names] for title, names in groups_of_htsr().items()}
    for package, title in packages.items():
        if importlib.util.find_spec(package):
            found[f"{title}: {package}"] = [f"{package}.{name}" for name in names_of(importlib.import_module(package))]
    return found


def item_of(name: str) -> object:
    """Return what a full name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def members(cls: type) -> list[str]:
    """Return the public methods and properties that a class has from htsr, its own first."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("htsr")]
    found = [
        name
        for base in ours
        for name, value in vars(base).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property | classmethod | staticmethod))
    ]
    return list(dict.fromkeys(found))


def first_sentence(item: object) -> str:
    """Return what the first line of a docstring says."""
    documented = inspect.isclass(item) or callable(item) or inspect.ismodule(item)
    return ((inspect.getdoc(item) or "").splitlines() or [""])[0].replace("|", r"\|") if documented else ""


def entry(name: str) -> list[str]:
    """Return the directive that documents a name."""
    item = item_of(name)
    if inspect.isclass(item):
        listed = members(item)
        return [f".. autoclass:: {name}", *([f"   :members: {', '.join(listed)}"] if listed else []), ""]
    if callable(item):
        return [f".. autofunction:: {name}", ""]
    module, _, last = name.rpartition(".")
    return [f".. py:data:: {last}", f"   :module: {module}", f"   :type: {type(item).__name__}", ""]


def write_pages(app: Sphinx) -> None:
    """Write docs/api."""
    with mock(app.config.autodoc_mock_imports):
        found = groups()
    folder = Path(app.srcdir) / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seen: dict[int, str] = {}
    index = ["# API", "", "Every public name, with what it is for. Each entry has a link to its source.", ""]
    pages = []
    for title, names in found.items():
        page = re.sub(r"\W+", "_", title.rpartition(": ")[2].lower())
        rows, entries = ["| name | |", "|---|---|"], []
        for name in names:
            item = item_of(name)
            if inspect.ismodule(item) or name.endswith("__version__"):
                continue
            documented = seen.setdefault(id(item), name)
            role = "class" if inspect.isclass(item) else "func" if callable(item) else "data"
            rows.append(f"| {{py:{role}}}`{name} <{documented}>` | {first_sentence(item)} |")
            if documented == name:
                entries += entry(name)
        if not entries:
            continue
        heading = title.partition(": ")[0]
        text = [f"# {heading}", "", *rows, "", "```{eval-rst}", *entries, "```", ""]
        (folder / f"{page}.md").write_text("\n".join(text), encoding="utf-8")
        index += [f"## [{heading}]({page}.md)", "", *rows, ""]
        pages.append(page)
    index += ["```{toctree}", ":hidden:", *pages, "```", ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages, priority=200)
    return {"parallel_read_safe": True}
