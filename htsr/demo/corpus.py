"""A text that every Python installation contains: the sources of its standard library."""

import sysconfig
from pathlib import Path

# Whole files are held out, every tenth one, so that training sees no part of them.
HELD_OUT_EVERY = 10


def standard_library() -> tuple[bytes, bytes]:
    """Return the text to train on and the held-out text: the top-level modules of the standard library, sorted by name."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    held_out = files[::HELD_OUT_EVERY]
    train = [file for file in files if file not in set(held_out)]
    return b"\n".join(map(Path.read_bytes, train)), b"\n".join(map(Path.read_bytes, held_out))
