"""A lock on a file, which the system itself releases when the process that holds it ends, however it ends."""

import errno
import logging
import os
import socket
import stat
import sys
import weakref
from contextlib import suppress
from pathlib import Path

from htsr.errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

# What the system answers if somebody else holds the lock: EAGAIN from flock, EACCES or EDEADLOCK from Windows.
HELD = (errno.EAGAIN, errno.EACCES, getattr(errno, "EDEADLOCK", errno.EAGAIN))
# What it answers if the file system knows no locks, as some network file systems.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
# Windows locks bytes and forbids reading them; this one lies behind the text.
LOCKED_BYTE = 1 << 20


class FileLock:
    """Holds an exclusive lock until ``release``, until nobody refers to the object, or until the process ends.

    It makes the file, and the folder around it, where they are missing. It raises ``InputError`` if the lock is held, also by
    this very process; ``what`` begins the message.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._descriptor = _locked(path, what)
        self._finalizer = weakref.finalize(self, _unlock, self._descriptor, os.getpid())
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; the file stays."""
        _held.discard(self)
        self._finalizer()


def _unlock(descriptor: int, holder: int) -> None:
    """Give the lock back if this process took it, even while a child has not closed its copy yet, and close the file."""
    if os.getpid() == holder and sys.platform != "win32":
        with suppress(OSError):  # a file system that knows no locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _release_in_child() -> None:
    """Close a forked child's copies: the lock of a killed parent must not live on in its data loaders."""
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


def _locked(path: Path, what: str) -> int:
    """Return the descriptor of a file that this call has locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path}: expected a file, got a pipe or a device")
            _lock(descriptor, path, what)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before has just deleted the file: what is locked has no name any more


def _lock(descriptor: int, path: Path, what: str) -> None:
    """Lock an open file, or raise ``InputError`` if somebody holds its lock."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        if err.errno in HELD:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise InputError(f"{what} ({holder}, which holds {path})") from None
        if err.errno not in UNKNOWN:
            raise
        logger.warning("%s: this file system knows no locks, so two writers would not be noticed (%s)", path, err)
