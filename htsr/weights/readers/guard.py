"""A guarded process that reads headers, pickles and metadata of files that nobody has vouched for.

A few bytes can keep a parser busy for hours, fill the memory, or crash a C library: a pickle whose key is a tuple of tuples
thirty levels deep, an HDF5 header that points at itself, a protobuf field of a gigabyte. ``listed`` therefore runs a reader in a
process of its own, with limits on its processor time and its memory, and hands back what the reader found. One process serves
all files, one after the other; one that hits a limit is replaced. Only lists of names, shapes and places come back. The numbers
themselves are read later, by the caller, one matrix at a time.
"""

import atexit
import contextlib
import os
import pickle
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from htsr.errors import InputError

# Processor time and memory that reading a file's metadata may take: so much, and so much more for each byte of the file, since
# protobuf and the older torch format hold the weights in the same piece. The metadata of a trained network of 100,000 tensors
# takes under two seconds; the limits stay below what a person would call a hang.
CPU_SECONDS, CPU_SECONDS_PER_BYTE = 3, 1 / 100e6
MEMORY_BYTES, MEMORY_PER_BYTE = 3 * 2**28, 3
# A process that waits, for a disk for instance, uses no processor time; it may wait this many times longer.
WAIT_FACTOR, WAIT_SECONDS = 4, 20
# An answer is a list of names and shapes. One that is longer than this was made to be.
MAX_ANSWER_BYTES = 2**28
_LENGTH = struct.Struct("<Q")


def guarded(function: Callable[..., Any], *arguments: Any, path: Path, size: int) -> Any:
    """Call a function in the guarded process and return what it returns.

    Args:
        function: A function of a module, which the other process can import.
        *arguments: Its arguments, picklable.
        path: The file or directory that it reads, for messages.
        size: How many bytes it may have to look at; the limits grow with them.

    Returns:
        Its result.

    Raises:
        InputError: If the function raised one, crashed, or went beyond its limits.
        OSError: If the function raised one.
        ImportError: If the function needs a package that is not installed.
    """
    with _lock:
        process = _running()
        try:
            answer = process.ask((function, arguments), path, size)
        except BaseException:  # also Ctrl-C: an answer that nobody waited for must not be taken for the next one
            stop()
            raise
    kind, value = pickle.loads(answer)
    if kind == "raised":
        raise value
    return value


def stop() -> None:
    """End the guarded process, if there is one; the next call starts another."""
    global _process
    process, _process = _process, None
    if process is not None:
        process.end()


class _Guarded:
    """The other process, and the two pipes to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # what a buffer holds, a selector does not see
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._from = self._process.stdout
        self._receive(time.monotonic() + 600)  # it says that it is ready: importing torch does not count as reading

    def ask(self, question: object, path: Path, size: int) -> bytes:
        """Send a question and return the answer, or raise InputError if there is none within the limits."""
        seconds = CPU_SECONDS + size * CPU_SECONDS_PER_BYTE
        # a relative path means the place where the caller is now, not where it was when the process started
        message = pickle.dumps((question, _working_directory(), seconds, MEMORY_BYTES + MEMORY_PER_BYTE * size))
        self._to.write(_LENGTH.pack(len(message)) + message)
        try:
            return self._receive(time.monotonic() + WAIT_FACTOR * seconds + WAIT_SECONDS)
        except _NoAnswerError as err:
            raise InputError(
                f"{path}: refused: {err} while its metadata was read ({size:,} bytes; the limits are {seconds:.0f} s of "
                f"processor time and {MEMORY_BYTES >> 20} MB): it is damaged or made to exhaust whoever opens it; download or "
                "save it again"
            ) from err

    def _receive(self, deadline: float) -> bytes:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        if length > MAX_ANSWER_BYTES:
            raise _NoAnswerError(f"it describes {length:,} bytes of names and shapes")
        return self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            while len(data) < count:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise _NoAnswerError("the reader gave no answer")
                piece = os.read(self._from.fileno(), min(count - len(data), 2**20))
                if not piece:
                    code = self._process.wait(10)
                    raise _NoAnswerError("the reader took too long" if code == -_SIGXCPU else "the reader crashed")
                data += piece
        return bytes(data)

    def end(self) -> None:
        """Kill the process. A copy of this object in a forked process leaves it alone."""
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()


class _NoAnswerError(Exception):
    """The other process crashed, or did not answer in time."""


_SIGXCPU = 24  # signal.SIGXCPU, which Windows does not name
_lock = threading.RLock()
_process: _Guarded | None = None
atexit.register(stop)


def _working_directory() -> str:
    """Return where relative paths begin; from a directory that was deleted, only absolute ones lead anywhere."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


def _running() -> _Guarded:
    """The guarded process of this process; started on first use, and anew after a fork."""
    global _process
    if _process is None or _process.owner != os.getpid():
        stop()
        _process = _Guarded()
    return _process


def serve() -> None:
    """Answer questions until there are no more. This is what the guarded process runs."""
    import signal

    import torch  # noqa: F401  # before the limits, so that its size counts for no file

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    message = b""
    while True:
        answers.write(_LENGTH.pack(len(message)) + message)
        answers.flush()
        header = questions.read(_LENGTH.size)
        if len(header) < _LENGTH.size:
            return
        (function, arguments), directory, seconds, memory = pickle.loads(questions.read(_LENGTH.unpack(header)[0]))
        _limit(seconds, memory)
        try:
            os.chdir(directory)
            message = pickle.dumps(("answer", function(*arguments)))
        except (InputError, OSError, ImportError) as err:
            message = pickle.dumps(("raised", _plain(err)))
        except MemoryError:
            message = pickle.dumps(("raised", InputError(f"refused: its metadata needs more than {memory >> 20} MB")))
        except Exception as err:  # whatever a reader stumbles over is the file's fault here
            message = pickle.dumps(("raised", InputError(f"not readable ({type(err).__name__}: {err})")))
        _limit(None, None)


def _limit(seconds: float | None, memory: int | None) -> None:
    """Allow this much more processor time and memory than was used so far; None lifts the limit."""
    try:
        import resource
    except ImportError:  # Windows: the caller's clock is the only limit
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = resource.RLIM_INFINITY if seconds is None else int(used.ru_utime + used.ru_stime + seconds) + 1
    for kind, value in ((resource.RLIMIT_CPU, cpu), (resource.RLIMIT_DATA, _data_bytes(memory))):
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _data_bytes(more: int | None) -> int:
    """How much memory the process may have in all to get this much more; no limit where the system does not say."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, IndexError):
        return resource.RLIM_INFINITY
    return resource.RLIM_INFINITY if more is None else pages * resource.getpagesize() + more


def _plain(err: Exception) -> Exception:
    """The same error without what may not survive a pickle."""
    if isinstance(err, OSError):
        return type(err)(*err.args) if err.args else OSError(str(err))
    return type(err)(str(err))
