"""Checkpoints at a URL, fetched by fsspec: ``s3://``, ``gs://``, ``hf://``, ``https://``, ``memory://``, ``zip://``, ..."""

import atexit
import fnmatch
import shutil
import tempfile
from pathlib import Path
from typing import Any

from htsr.errors import InputError
from htsr.weights.readers.optional import import_optional

# Which files of a directory make up a checkpoint: the first pattern that any name matches, and what describes them.
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
    """Whether a source is the address of something elsewhere."""
    return isinstance(source, str) and "://" in source


def fetch_checkpoint(url: str) -> Path:
    """Copy a checkpoint into a temporary directory that lives as long as this process.

    Args:
        url: Address of a file or directory, in fsspec's words. Of a directory, the files that make up a checkpoint are
            fetched and no others.

    Returns:
        Where it is now.

    Raises:
        FileNotFoundError: If there is nothing at the address.
        InputError: If fsspec or the package of the store is not installed, or nothing there looks like a checkpoint.
    """
    fsspec = import_optional("fsspec", "remote", url)
    try:
        files, root = fsspec.core.url_to_fs(url)
        directory = files.isdir(root)
        if not directory and not files.exists(root):
            raise FileNotFoundError(f"{url}: nothing there")
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
    copy = directory / Path(entry).name
    files.get_file(entry, str(copy))
    return copy


def _exists(files: Any, entry: str) -> bool:
    try:
        return bool(files.exists(entry))
    except OSError:  # a store may forbid to look
        return False


def _wanted(url: str, names: list[str]) -> list[str]:
    for patterns in CHECKPOINTS:
        if fnmatch.filter(names, patterns[0]):
            return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in (*patterns, *BESIDE))]
    raise InputError(f"{url}: expected the files of a checkpoint, found {', '.join(sorted(names)[:5]) or 'nothing'}")
