"""The guarded process: what it hands back, what it refuses, and that it serves again after each refusal."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from htsr import InputError
from htsr.weights import open_source
from htsr.weights.readers import guard

if not hasattr(signal, "SIGXCPU"):
    pytest.skip("limits on processor time need POSIX", allow_module_level=True)


def pid(_: object) -> int:
    return os.getpid()


def echo(value: object) -> object:
    print("what a library prints is no answer")
    return value


def spin(_: object) -> None:
    while True:
        pass


def allocate(count: int) -> int:
    return len(bytearray(count))


def abort(_: object) -> None:
    os.abort()


def raise_error(name: str) -> None:
    raise {"KeyError": KeyError, "InputError": InputError, "RecursionError": RecursionError}[name]("told by the reader")


def open_missing(path: str) -> None:
    with open(path):
        pass


def call(function, argument, size=100):
    return guard.guarded(function, argument, path=Path("model.pt"), size=size)


@pytest.fixture
def short(monkeypatch):
    """Limits that a test can wait for."""
    monkeypatch.setattr(guard, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(guard, "MEMORY_BYTES", 2**27)


def test_one_process_serves_many_calls():
    assert call(echo, {"name": (3, 4)}) == {"name": (3, 4)}
    assert call(pid, 0) == call(pid, 1) != os.getpid()


@pytest.mark.parametrize(
    ("function", "argument", "said"),
    [
        (spin, 0, "took too long"),
        (abort, 0, "crashed"),
        (allocate, 2**30, "more than"),
        (raise_error, "KeyError", "KeyError"),
        (raise_error, "RecursionError", "RecursionError"),
        (raise_error, "InputError", "told by the reader"),
    ],
)
def test_what_goes_wrong_is_an_input_error_and_the_next_call_works(short, function, argument, said):
    with pytest.raises(InputError, match=said):
        call(function, argument)
    assert call(echo, 7) == 7


def test_limits_grow_with_the_file(short):
    assert call(allocate, 2**28, size=2**27) == 2**28
    with pytest.raises(InputError, match="more than"):
        call(allocate, 2**28, size=10)


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        call(open_missing, str(tmp_path / "nowhere"))


def test_a_relative_path_means_where_the_caller_is_now(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.save({name: torch.ones(3, 2)}, tmp_path / name / "m.pt")
    for name in ("one", "two", "one"):
        monkeypatch.chdir(tmp_path / name)
        assert [layer.name for layer in open_source("m.pt").layers] == [name]


def test_a_deleted_working_directory_does_not_matter_to_an_absolute_path(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(3, 2)}, tmp_path / "m.pt")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert [layer.name for layer in open_source(tmp_path / "m.pt").layers] == ["w"]


def test_an_answer_that_is_too_long_is_refused(short, monkeypatch):
    monkeypatch.setattr(guard, "MAX_ANSWER_BYTES", 1000)
    with pytest.raises(InputError, match="names and shapes"):
        call(echo, "x" * 2000)
    assert call(echo, 7) == 7


def test_ctrl_c_ends_the_wait_and_no_answer_is_mistaken_for_the_next():
    call(echo, 0)
    timer = threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call(spin, 0)
    assert time.monotonic() - start < 4
    assert call(echo, 7) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_starts_its_own(short):
    mine = call(pid, 0)
    child = os.fork()
    if child == 0:
        os._exit(0 if call(pid, 0) != mine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(pid, 0) == mine
