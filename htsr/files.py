"""Files that are there whole or not at all, and bytes that show any damage."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

# A file that is being written has a name with this prefix; a killed process may leave one behind.
ASIDE = ".htsr-"
# A seal is this mark and a digest of all bytes before it.
MARK, DIGEST_SIZE = b"\nhtsr seal ", 32
SEAL_SIZE = len(MARK) + DIGEST_SIZE


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at ``path`` complete, or not at all.

    Bytes go to a hidden file of a fresh name beside it, are synced to disk, and the file is renamed, which is atomic. A
    process killed at any moment leaves at most the hidden file. A file that is replaced hands on its permissions.

    Args:
        path: Where the file is to appear.

    Yields:
        The file, open for writing bytes.

    Raises:
        OSError: If it cannot be written; the error names ``path``.
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


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: The file.

    Returns:
        The file, open for reading bytes.

    Raises:
        OSError: If it cannot be opened, or is a directory, a pipe or a device; those are never waited for.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a file, got a directory, a pipe or a device", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """Return the bytes of a regular file; see ``open_regular``.

    Args:
        path: The file.

    Returns:
        Its bytes.
    """
    with open_regular(path) as file:
        return file.read()


def seal(data: bytes, context: str = "") -> bytes:
    """Return bytes with a digest after them, from which ``unseal`` tells whether any bit has changed.

    Args:
        data: Any bytes.
        context: What the bytes are for. A file that somebody renamed to stand for something else then counts as damaged.

    Returns:
        The bytes and their seal. Readers of zip and npy files ignore it.
    """
    return data + MARK + _digest(data, context)


def unseal(data: bytes, context: str = "") -> bytes:
    """Return the bytes that ``seal`` got.

    Args:
        data: What ``seal`` returned.
        context: The same as there.

    Returns:
        The bytes without their seal.

    Raises:
        ValueError: If there is no seal, or it does not fit.
    """
    if not is_sealed(data):
        raise ValueError("it does not end with a checksum")
    sealed = data[:-SEAL_SIZE]
    if data[-DIGEST_SIZE:] != _digest(sealed, context):
        raise ValueError("its checksum does not fit its content")
    return sealed


def is_sealed(data: bytes) -> bool:
    """Return whether bytes end with a seal, fitting or not."""
    return data[-SEAL_SIZE:-DIGEST_SIZE] == MARK


def _digest(data: bytes, context: str) -> bytes:
    digest = blake2b(context.encode(), digest_size=DIGEST_SIZE)
    digest.update(b"\0")
    digest.update(data)
    return digest.digest()


def _sync_directory(path: Path) -> None:
    """Make a rename durable if the system can sync directories."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
