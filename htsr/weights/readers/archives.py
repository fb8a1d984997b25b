"""Open zip archives of tensors safely: torch files, ``.npz`` and ``.keras``."""

import zipfile
from pathlib import Path

from htsr.errors import InputError
from htsr.files import open_regular

# The signatures by which source.py tells archives and torch's older files from others.
KERAS_WEIGHTS = "model.weights.h5"
# torch.serialization.MAGIC_NUMBER as a pickle holds it.
TORCH_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
# Deflate compresses by at most 1032 to 1, and trained weights by hardly 2 to 1. An archive that unpacks to more than
# MAX_GROWTH times its size, and to more than MAX_GROWN_BYTES, is a zip bomb or holds nothing worth analysing.
MAX_GROWTH, MAX_GROWN_BYTES = 100, 2**28


def is_archive(path: Path) -> bool:
    """Return whether a file begins like a zip archive."""
    # zipfile.is_zipfile looks at the end of the file, where damage confuses it
    with open_regular(path) as file:
        return file.read(4) == b"PK\x03\x04"


def archive_entries(path: Path, kind: str) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of an archive by name; raise InputError if it is unreadable or may be a zip bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as err:
        raise unreadable_file(path, kind, err) from err
    unpacked, size = sum(entry.file_size for entry in found), path.stat().st_size
    if unpacked > max(MAX_GROWN_BYTES, MAX_GROWTH * size):
        raise InputError(
            f"{path}: {size:,} bytes that unpack to {unpacked:,}: refused as a zip bomb; if you trust it, save it uncompressed"
        )
    return {entry.filename: entry for entry in found}


def check_no_lfs_pointer(path: Path) -> None:
    """Raise InputError if a file is the pointer that git-lfs leaves in place of a file that it did not download."""
    with open_regular(path) as file:
        head = file.read(200)
    if head.startswith(b"version https://git-lfs.github.com/spec/v1"):
        size = next(
            (int(line[5:]) for line in head.split(b"\n") if line.startswith(b"size ") and line[5:].isdigit()), 0
        )
        raise InputError(
            f"{path}: a git-lfs pointer, not the file of {size:,} bytes that it stands for: fetch it with `git lfs install` and "
            "`git lfs pull` in the repository, or download the file itself"
        )


def unreadable_file(path: Path, kind: str, err: BaseException) -> InputError:
    """Return the InputError for a file that its reader cannot read."""
    said = " ".join(str(err).split())
    said = said.split(" In PyTorch 2.6")[0][:300]  # there, torch goes on to advise executing the file
    if not isinstance(err, InputError):
        said = f"{type(err).__name__}: {said}" if said else type(err).__name__
    size = path.stat().st_size if path.is_file() else 0
    return InputError(
        f"{path}: not a readable {kind} ({size:,} bytes; the reader says: {said}): it is truncated, damaged or in "
        "another format; download or save it again"
    )
