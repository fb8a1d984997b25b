"""Thousands of hostile checkpoints: each is refused with a message or gives rows and reasons, soon, and from its own bytes.

Workers audit the inputs one by one. A failure names the seed of its input; ``HTSR_HOSTILE_SEED=17 pytest tests/hostile`` runs
that input alone.
"""

import contextlib
import functools
import json
import os
import random
import re
import selectors
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.hostile import mutations, originals, worker
from tests.weights.readers import test_formats as formats

if sys.platform != "linux":
    pytest.skip("pipes, links and /proc as Linux has them", allow_module_level=True)

SECONDS, BYTES = 10, 2**30
WORKERS = 2
# Changes that leave the bytes of all weights as they were: a number far from theirs was read from elsewhere.
VALUES_ARE_TRUE = re.compile("change_(hdf5|metadata|json)|replace_by|StringStringEntryProto")


class Worker:
    """A process that audits inputs, watched by ``site/sitecustomize.py``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.inputs, self.cache, self.temporary = (folder / name for name in ("inputs", "cache", "tmp"))
        for place in (self.inputs, self.cache, self.temporary):
            place.mkdir()
        self.log = folder / "opened"
        self.log.touch()
        mutations.planted(self.inputs / mutations.OUTSIDE, worker.PLANTED)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        code = Path(__file__).parents[2]
        roots = os.pathsep.join(map(str, (self.inputs, self.cache, self.temporary)))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "site"), str(code)]),
            "HTSR_HOSTILE_LOG": str(self.log), "HTSR_HOSTILE_ROOTS": roots, "HTSR_HOSTILE_CODE": str(code),
            "HTSR_CACHE_DIR": str(self.cache), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, cwd=self.inputs, env=environment,
        )  # fmt: skip
        assert self._answer(300) == "ready"

    def audit(self, job: dict) -> str:
        """What is wrong with how an input is treated; empty if nothing is."""
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        start = time.monotonic()
        answer = self._answer(SECONDS * 3)
        seconds = time.monotonic() - start
        if answer is None:
            code = self._process.poll()
            self.stop()
            return "no answer" if code is None else f"the process ended with status {code}"
        opened = self.log.read_text()
        self.log.write_text("")
        if answer["kind"] == "failed":
            return answer["said"]
        if seconds > SECONDS:
            return f"{seconds:.1f} s"
        if answer["grew"] > BYTES:
            return f"grew by {answer['grew']:,} bytes"
        if any(self.inputs.rglob("canary")):
            return "the canary was executed"
        return opened

    def _answer(self, seconds: float) -> object:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The valid checkpoints: the folder of each, and what in it is opened."""
    torch.manual_seed(0)
    model = formats.Small().eval()
    found = []
    for write in originals.WRITERS:
        folder = tmp_path_factory.mktemp(write.__name__)
        with contextlib.suppress(pytest.skip.Exception):
            found.append((folder, Path(write(model, folder))))
    return found


def run(seeds, checkpoints, folder: Path) -> list[str]:
    """The failures among the inputs of these seeds."""
    workers = [Worker(folder / f"worker{i}") for i in range(WORKERS)]

    def judge(number: int) -> list[str]:
        mine, failures = workers[number], []
        for seed in list(seeds)[number::WORKERS]:
            draw = random.Random(f"hostile {seed}")
            original, source = checkpoints[seed % len(checkpoints)]
            copy = mine.inputs / f"input{seed}" / "checkpoint"
            copy.parent.mkdir()
            mutations.copied(original, copy)
            opened = copy / source.relative_to(original)
            how = [mutations.mutate(copy, opened, draw) for _ in range(draw.choice([1, 1, 1, 2]))]
            job = {"source": str(opened), "values_are_true": all(VALUES_ARE_TRUE.search(each) for each in how)}
            said = mine.audit(job)
            if said.endswith(" s"):  # a busy machine is no hang
                said = mine.audit(job)
            if said:
                failures.append(f"seed {seed}, {original.name}, {'; '.join(how)}: {said}")
                print(failures[-1], flush=True)  # a run of an hour shows them as they come
            shutil.rmtree(copy.parent)
        return failures

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            return [failure for found in pool.map(judge, range(WORKERS)) for failure in found]
    finally:
        for each in workers:
            each.stop()


@functools.cache
def wanted() -> list[int] | None:
    chosen = os.environ.get("HTSR_HOSTILE_SEED", "")
    return [int(seed) for seed in chosen.split(",")] if chosen else None


@pytest.mark.filterwarnings("ignore")
def test_two_hundred_inputs(checkpoints, tmp_path):
    failures = run(wanted() or range(200), checkpoints, tmp_path)
    assert not failures, f"{len(failures)} failures:\n" + "\n\n".join(failures[:10])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_inputs(checkpoints, tmp_path):
    failures = run(range(200, 10_200), checkpoints, tmp_path)
    assert not failures, f"{len(failures)} failures:\n" + "\n\n".join(failures[:50])
