"""Read regular files, and never wait for anything else."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; raise OSError for a directory, a pipe or a device, which are never waited for."""
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as err:  # a NUL or a lone surrogate in the name, which no file system holds
        raise FileNotFoundError(errno.ENOENT, f"no file can have this name ({err})", str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a file, got a directory, a pipe or a device", str(path))
    return os.fdopen(descriptor, "rb")


def through_links(path: Path) -> Path:
    """Return the place that a path leads to, there or not; raise OSError if links lead to themselves."""
    try:
        place = path.resolve()
    except RuntimeError:  # what Python before 3.13 makes of it
        place = path
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


def read_regular(path: Path) -> bytes:
    """Return the bytes of a regular file."""
    with open_regular(path) as file:
        return file.read()
