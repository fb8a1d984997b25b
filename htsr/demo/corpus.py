"""Text that every Python has: the sources of its own standard library."""

import sysconfig
from pathlib import Path

# Every tenth file is held out whole, so that no function of it was seen in training.
HELD_OUT_EVERY = 10


def standard_library() -> tuple[bytes, bytes]:
    """The top-level modules of the standard library, in the order of their names.

    Returns:
        Text to train on and text held out.
    """
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    held_out = files[::HELD_OUT_EVERY]
    train = [file for file in files if file not in set(held_out)]
    return b"\n".join(map(Path.read_bytes, train)), b"\n".join(map(Path.read_bytes, held_out))
