"""Fetch a checkpoint from a URL with fsspec: ``s3://``, ``gs://``, ``hf://``, ``https://``, ``memory://``, ``zip://``, ..."""

import atexit
import fnmatch
import shutil
import tempfile
from pathlib import Path
from typing import Any

from htsr.errors import InputError
from htsr.weights.readers.optional import import_optional

# Only the files of a checkpoint are fetched from a directory. The first pattern of each line identifies a checkpoint; the first
# line that any file matches is taken, and all of its patterns with those of BESIDE are fetched.
CHECKPOINTS = (
    ("adapter_config.json", "adapter_model.*"),
    ("*.safetensors",),
    (".metadata", "*.distcp"),
    ("pytorch_model*.bin",),
    ("model*.bin",),
    ("*.gguf",),
    ("*.onnx", "*.onnx.data", "*.onnx_data"),
    ("*.keras",),
    ("*.h5",),
    ("*.pt",),
    ("*.pth",),
    ("*.ckpt",),
    ("*.npz",),
)
BESIDE = ("config.json", "*.index.json")


def is_url(source: object) -> bool:
    """Return whether a source is a URL."""
    return isinstance(source, str) and "://" in source


def fetch_checkpoint(url: str) -> Path:
    """Copy a checkpoint into a temporary directory, which this process deletes on exit, and return its path there."""
    fsspec = import_optional("fsspec", "remote", url)
    try:
        files, root = fsspec.core.url_to_fs(url)
        directory = files.isdir(root)
        if not directory and not files.exists(root):
            raise FileNotFoundError(f"{url}: no such file or directory")
        copies = Path(tempfile.mkdtemp(prefix="htsr-remote-"))
        atexit.register(shutil.rmtree, copies, ignore_errors=True)
        if not directory:
            beside = f"{root.rpartition('/')[0]}/config.json"
            if _exists(files, beside):
                files.get_file(beside, str(copies / "config.json"))
            return _copy(files, root, copies)
        names = {Path(entry).name: entry for entry in files.ls(root, detail=False)}
        for name in _wanted(url, list(names)):
            _copy(files, names[name], copies)
    except InputError:
        raise
    except (ImportError, ValueError) as err:
        raise InputError(f"{url}: fsspec cannot open it: {err}") from err
    return copies


def _copy(files: Any, entry: str, directory: Path) -> Path:
    """Copy one file into a directory and return its path there."""
    copy = directory / Path(entry).name
    files.get_file(entry, str(copy))
    return copy


def _exists(files: Any, entry: str) -> bool:
    """Return whether a file exists; False if the store forbids asking."""
    try:
        return bool(files.exists(entry))
    except OSError:  # a store may forbid asking
        return False


def _wanted(url: str, names: list[str]) -> list[str]:
    """Return the names that belong to the checkpoint of a directory."""
    for patterns in CHECKPOINTS:
        if fnmatch.filter(names, patterns[0]):
            return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in (*patterns, *BESIDE))]
    raise InputError(f"{url}: expected the files of a checkpoint, found {', '.join(sorted(names)[:5]) or 'nothing'}")
