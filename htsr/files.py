"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at ``path`` complete, or not at all.

    Bytes go to a hidden file beside it, are synced to disk, and the file is renamed, which is atomic. A process killed
    at any moment leaves at most the hidden file.

    Args:
        path: Where the file is to appear.

    Yields:
        The file, open for writing bytes.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    """Make a rename durable, where the system lets directories be synced."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
