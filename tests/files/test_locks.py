"""A lock is held by one at a time, and by nobody once its holder is gone."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from htsr.errors import InputError
from htsr.files import FileLock, locks

HOLD = """
import sys, time
from pathlib import Path
from htsr.files import FileLock
lock = FileLock(Path(sys.argv[1]), "held")
print("locked", flush=True)
time.sleep(60)
"""


def test_one_at_a_time(tmp_path):
    lock = FileLock(tmp_path / "new" / "lock", "x: in use")
    with pytest.raises(InputError, match=rf"^x: in use \(process {os.getpid()} on "):
        FileLock(tmp_path / "new" / "lock", "x: in use")
    lock.release()
    lock.release()  # a second time does no harm
    other = FileLock(tmp_path / "new" / "lock", "x: in use")
    lock.release()  # nor does it take the lock from another holder
    with pytest.raises(InputError, match="in use"):
        FileLock(tmp_path / "new" / "lock", "x: in use")
    other.release()


def test_nobody_holds_a_lock_that_was_forgotten(tmp_path):
    FileLock(tmp_path / "lock", "x")
    FileLock(tmp_path / "lock", "x").release()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM] if hasattr(signal, "SIGKILL") else [])
def test_a_dead_holder_is_no_obstacle(tmp_path, end):
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"process {process.pid} "):
        FileLock(path, "x")
    process.send_signal(end)
    process.communicate()
    FileLock(path, "x").release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_that_outlives_the_holder_does_not_hold_the_lock(tmp_path):
    lock = FileLock(tmp_path / "lock", "x")
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    with pytest.raises(InputError):  # the child's end of it is closed; the parent's is not
        FileLock(tmp_path / "lock", "x")
    lock.release()
    FileLock(tmp_path / "lock", "x").release()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(InputError, match="expected a file"):
        FileLock(tmp_path / "lock", "x")


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch, caplog):
    def unknown(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", unknown)
    first, second = FileLock(tmp_path / "lock", "x"), FileLock(tmp_path / "lock", "x")
    assert "knows no locks" in caplog.text
    first.release()
    second.release()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no open file")
def test_a_lock_file_that_its_holder_deletes_is_made_anew(tmp_path, monkeypatch):
    path, real = tmp_path / "lock", locks._lock
    first = FileLock(path, "x")

    def deleted_just_before(*args):
        monkeypatch.setattr(locks, "_lock", real)
        path.unlink()
        first.release()
        real(*args)

    monkeypatch.setattr(locks, "_lock", deleted_just_before)
    second = FileLock(path, "x")
    with pytest.raises(InputError):
        FileLock(path, "x")
    second.release()
