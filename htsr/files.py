"""Write files that appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at ``path`` complete, or not at all.

    The context gives a hidden file beside it, open for writing bytes. At the end, the file is synced to disk and renamed,
    which is atomic, so a process that is killed leaves at most the hidden file.
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
    """Make a rename durable if the system can sync directories."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
