"""Write files that appear complete or not at all."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# A file that is being written has a name with this prefix; a killed process may leave one behind.
ASIDE = ".htsr-"


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at ``path`` complete, or not at all.

    The context gives a hidden file of a fresh name beside it, which is synced to disk and renamed at the end. A process that is
    killed leaves at most the hidden file. A file that is replaced hands on its permissions, and errors name ``path``.
    """
    aside = path.with_name(f"{ASIDE}{secrets.token_hex(8)}")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            aside.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(aside, path)
        _sync_directory(path.parent)
    except OSError as err:
        if err.errno is not None and err.filename in (None, str(aside)):  # nobody knows the hidden file
            raise OSError(err.errno, err.strerror, str(path)) from None
        raise
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
