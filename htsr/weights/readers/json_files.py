"""Read the JSON files of a checkpoint: ``config.json``, indexes, the settings of adapters."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from htsr.errors import InputError
from htsr.weights.inventory import Listing, StoredTensor, never_read
from htsr.weights.readers.archives import check_no_lfs_pointer

# A vocabulary of a million tokens takes some 60 MB; the files read here are far smaller.
MAX_JSON_BYTES = 2**27
# Files in which ModelOpt, AutoGPTQ and AutoAWQ write their settings, and what config.json calls these libraries.
QUANTISATIONS = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}


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
    check_no_lfs_pointer(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{path}: expected {kind}, got {type(err).__name__}: {str(err)[:200]}") from err
    if not isinstance(found, of):
        raise InputError(f"{path}: expected {kind}, got a {type(found).__name__}")
    return found


def with_config(listing: Listing, path: Path) -> Listing:
    """Return a listing with the ``config.json`` in its directory or beside its file, and a quantisation that has its own file.

    A damaged file of settings is listed with the reason.
    """
    folder = path if path.is_dir() else path.parent
    found: dict[str, dict[str, object]] = {}
    damaged = []
    for name in ("config.json", *QUANTISATIONS):
        try:
            found[name] = read_json(folder / name)
        except FileNotFoundError:
            continue
        except (InputError, OSError) as err:
            reason = f"not read, so nothing that it sets is followed: {err}"
            damaged.append(StoredTensor(name, (), "", never_read, reason=reason, num_params=0))
    config = found.get("config.json", {})
    for name, method in QUANTISATIONS.items():
        settings = found.get(name, {})
        inner = settings.get("quantization")
        settings = inner if isinstance(inner, dict) else settings  # ModelOpt names itself beside them
        if settings and not isinstance(config.get("quantization_config"), dict):
            method = "marlin" if settings.get("is_marlin_format") is True else method
            config["quantization_config"] = {"quant_method": method, **settings}
    return replace(listing, config=config, tensors=[*listing.tensors, *damaged])
