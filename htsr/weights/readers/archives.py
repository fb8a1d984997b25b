"""Zip archives that hold tensors: torch's files, ``.npz`` and ``.keras``."""

import zipfile
from pathlib import Path

from htsr.errors import InputError

# Deflate reaches 1032 to 1; weights of trained networks hardly 2 to 1. An archive that grows by more than this, to more than
# the size, is a bomb or holds nothing worth an audit.
MAX_GROWTH, MAX_GROWN_BYTES = 100, 2**28


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does; ``zipfile.is_zipfile`` looks at its end, and stumbles over damage there."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def archive_entries(path: Path, kind: str) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive, by name.

    Args:
        path: The file.
        kind: What it should be, for the message.

    Returns:
        The entries.

    Raises:
        InputError: If it is no readable archive, or one that unpacks to far more than its own size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as err:
        error = unreadable_file(path, kind, err)
        raise error from err
    unpacked, size = sum(entry.file_size for entry in found), path.stat().st_size
    if unpacked > max(MAX_GROWN_BYTES, MAX_GROWTH * size):
        raise InputError(
            f"{path}: {size:,} bytes that unpack to {unpacked:,}: refused as a zip bomb; if it is none, save it uncompressed"
        )
    return {entry.filename: entry for entry in found}


def unreadable_file(path: Path, kind: str, err: BaseException) -> InputError:
    """The error for a file that its reader cannot read."""
    said = " ".join(str(err).split()).split(" In PyTorch 2.6")[0][
        :300
    ]  # what follows there is advice to execute the file
    if not isinstance(err, InputError):
        said = f"{type(err).__name__}: {said}" if said else type(err).__name__
    size = path.stat().st_size if path.is_file() else 0
    return InputError(
        f"{path}: not a readable {kind} ({size:,} bytes; the reader says: {said}): it is truncated, damaged or of another "
        "format; download or save it again"
    )
