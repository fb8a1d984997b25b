"""Writes down every file that a process of the hostile tests opens where it may not. Python runs this at start.

A worker puts this folder on PYTHONPATH, so that the processes it starts are watched, too. Libraries in C open files behind
Python's back; ``test_mutations`` therefore also plants a file whose numbers would show in a row.
"""

import os
import sys
import sysconfig

LOG = os.environ.get("HTSR_HOSTILE_LOG")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _watch() -> None:
    inputs, cache, writable = (os.path.realpath(path) for path in os.environ["HTSR_HOSTILE_ROOTS"].split(os.pathsep))
    libraries = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())}
    readable = (
        *libraries,
        os.environ["HTSR_HOSTILE_CODE"],
        inputs,
        cache,
        writable,
        "/proc",
        "/sys",
        "/dev",
        "/usr",
        "/lib",
    )
    harmless = ("/etc/localtime", "/etc/mime.types", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/ssl")

    def hook(event: str, arguments: tuple) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes) or arguments[0] == LOG:
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        writes = bool((arguments[2] or 0) & WRITING) if isinstance(arguments[2], int) else False
        allowed = (cache, writable, "/dev", "/proc") if writes else readable
        if path.startswith(allowed) or (not writes and path.startswith(harmless)):
            return
        descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, f"{'wrote' if writes else 'read'} {path}\n".encode())
        os.close(descriptor)

    sys.addaudithook(hook)


if LOG:
    _watch()
