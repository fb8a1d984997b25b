"""Read the JSON files of a checkpoint: ``config.json``, indexes, the settings of adapters."""

import json
from pathlib import Path
from typing import Any

from htsr.errors import InputError

# A vocabulary of a million tokens takes some 60 MB; the files read here are far smaller.
MAX_JSON_BYTES = 2**27


def read_json(path: Path, of: type = dict) -> Any:
    """Return the JSON object, or the list, in a regular file; raise FileNotFoundError or InputError if there is none."""
    kind = "a JSON object" if of is dict else "a JSON list"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path}: expected a JSON file, got a folder, a device, a pipe or another special file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(
            f"{path}: expected a JSON file of at most {MAX_JSON_BYTES:,} bytes, got {path.stat().st_size:,}"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{path}: expected {kind}, got {type(err).__name__}: {str(err)[:200]}") from err
    if not isinstance(found, of):
        raise InputError(f"{path}: expected {kind}, got a {type(found).__name__}")
    return found


def config_beside(path: Path) -> dict[str, object]:
    """Return the ``config.json`` in a directory or beside a file; empty if it is missing or damaged."""
    try:
        found: dict[str, object] = read_json((path if path.is_dir() else path.parent) / "config.json")
        return found
    except (InputError, OSError):
        return {}
