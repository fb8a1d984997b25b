"""Find the files of an installed package without importing it."""

import importlib.metadata
import os
import re
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def package_files(name: str) -> list[tuple[Path, list[str]]]:
    """Return the folders of an installed package with the names of their files.

    ``name`` is the name of a distribution, as pip knows it (``silero-vad``), or of a module (``silero_vad``,
    ``silero_vad.data``).

    Raises:
        FileNotFoundError: If no installed package has the name.
    """
    if NAME.fullmatch(name):
        by_folder: dict[Path, list[str]] = defaultdict(list)
        for file in _distributed(name) or _below_module(name):
            by_folder[file.parent].append(file.name)
        if by_folder:
            return sorted(by_folder.items())
    raise FileNotFoundError(f"{name}: no such file or directory, and no installed package has this name")


def _distributed(name: str) -> list[Path]:
    """Return the files that pip installed for a distribution, without its metadata; none if it is not installed from a wheel."""
    try:
        found = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    inside = [file for file in found if ".." not in file.parts and not file.parts[0].endswith((".dist-info", ".pth"))]
    paths = [Path(os.fspath(file.locate())) for file in inside if not file.parts[0].startswith("__editable__")]
    return [path for path in paths if path.is_file()]


def _below_module(name: str) -> list[Path]:
    """Return the files of a module's folder; only its first component is looked up, since looking further would import it."""
    first, *rest = name.replace("-", "_").split(".")
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):
        return []
    files = []
    for location in (spec and spec.submodule_search_locations) or ():
        for folder, below, names in os.walk(Path(location, *rest)):
            below[:] = [item for item in below if not item.startswith((".", "__pycache__"))]
            files += [Path(folder, item) for item in names]
    return files
