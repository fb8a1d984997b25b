"""Fetch a checkpoint from a URL with fsspec: ``s3://``, ``gs://``, ``https://``, ``memory://``, ``zip://``, ..."""

import fnmatch
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from htsr.errors import InputError
from htsr.weights.inventory import Listing, ReadRows
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
# How long a server may keep silent.
SILENT_SECONDS = 30


def is_url(source: object) -> bool:
    """Return whether a source is a URL."""
    return isinstance(source, str) and "://" in source


class Copies:
    """A temporary directory that is deleted when nothing refers to this object any more, at exit at the latest."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="htsr-remote-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class _ReadCopy:
    """Reads a tensor of a copy, and keeps the copy as long as somebody may read it; another process gets the reader alone."""

    read: ReadRows
    copies: Copies = field(repr=False)

    def __call__(self, rows: slice | None) -> torch.Tensor:
        """Return the tensor, or these rows of it."""
        return self.read(rows)

    def __reduce__(self) -> tuple[Callable[[ReadRows], ReadRows], tuple[ReadRows]]:
        return _as_it_is, (self.read,)


def _as_it_is(read: ReadRows) -> ReadRows:
    return read


def keep_copies(listing: Listing, copies: Copies, url: str) -> Listing:
    """Return the listing of a copied checkpoint under its URL; the copy lives as long as any of its tensors."""
    tensors = [
        tensor if tensor.reason is not None else replace(tensor, read=_ReadCopy(tensor.read, copies))
        for tensor in listing.tensors
    ]
    optimized = [
        replace(
            parameter,
            states={
                kind: replace(state, read=_ReadCopy(state.read, copies)) for kind, state in parameter.states.items()
            },
        )
        for parameter in listing.optimized
    ]
    return replace(listing, source=url, tensors=tensors, optimized=optimized)


def fetch_checkpoint(url: str) -> tuple[Copies, Path]:
    """Copy a checkpoint into a temporary directory and return the directory and the path to open in it."""
    fsspec = import_optional("fsspec", "remote", url)
    copies = Copies()
    try:
        options = {"client_kwargs": {"timeout": _timeout()}} if url.startswith(("http://", "https://")) else {}
        files, root = fsspec.core.url_to_fs(url, **options)
        directory = files.isdir(root)
        if not directory and not files.exists(root):
            raise FileNotFoundError(f"{url}: no such file or directory")
        if not directory:
            beside = f"{root.rpartition('/')[0]}/config.json"
            if _exists(files, beside):
                _copy(files, beside, copies.path)
            return copies, _copy(files, root, copies.path)
        names = {Path(entry).name: entry for entry in files.ls(root, detail=False)}
        for name in wanted(url, list(names)):
            _copy(files, names[name], copies.path)
    except (InputError, FileNotFoundError):
        raise
    except Exception as err:  # every store has errors of its own: no network, no permission, a server that fails
        said = " ".join(f"{type(err).__name__}: {err}".split())[:300]
        raise InputError(
            f"{url}: cannot be fetched ({said}); check the address, or fetch it and pass the path"
        ) from err
    return copies, copies.path


def _timeout() -> Any:
    """Return how long a server may keep silent; a large file may take as long as it needs."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=SILENT_SECONDS, sock_read=SILENT_SECONDS)


def _copy(files: Any, entry: str, directory: Path) -> Path:
    """Copy one file into a directory and return its path there; raise InputError if it came short."""
    copy = directory / Path(entry).name
    files.get_file(entry, str(copy))
    said = _size(files, entry)
    if said is not None and copy.stat().st_size != said:
        raise InputError(f"{entry}: {copy.stat().st_size:,} of {said:,} bytes came; fetch it again")
    return copy


def _size(files: Any, entry: str) -> int | None:
    """Return the size that a store names for a file; None if it names none, or that of a compressed transfer."""
    try:
        about = files.info(entry)
    except Exception:  # what cannot be asked cannot be compared
        return None
    size = about.get("size")
    return size if isinstance(size, int) and not about.get("partial") else None


def _exists(files: Any, entry: str) -> bool:
    """Return whether a file exists; False if the store forbids asking."""
    try:
        return bool(files.exists(entry))
    except Exception:  # a store may forbid asking, in any words
        return False


def wanted(url: str, names: list[str]) -> list[str]:
    """Return the names that belong to the checkpoint of a directory."""
    for patterns in CHECKPOINTS:
        if fnmatch.filter(names, patterns[0]):
            return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in (*patterns, *BESIDE))]
    raise InputError(f"{url}: expected the files of a checkpoint, found {', '.join(sorted(names)[:5]) or 'nothing'}")
