"""Write results beside the machine, versions and commit that produced them, and time programs against each other."""

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy
import torch

RESULTS = Path(__file__).parent / "results"


def provenance() -> str:
    """Return one line: processor, threads, versions, commit."""
    commit = _git("rev-parse", "--short", "HEAD").strip()
    changed = _git("status", "--porcelain", "htsr", "optim")
    return (
        f"{processor()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, commit {commit or 'unknown'}"
        f"{' with changes' if changed else ''}"
    )


def processor() -> str:
    """Return the name of the processor."""
    models = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return models[0] if models else platform.processor()


def alternate(programs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each program in each round, after one round that does not count.

    The programs take turns, so that a drift of the machine affects all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for round_number in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median over rounds of the ratio within each round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Return the lines of a Markdown table; floats get three digits."""

    def cell(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float | numpy.floating) else str(value)

    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(map(cell, row)) + " |" for row in rows),
    ]


def write(name: str, text: str) -> None:
    """Print a result and write it to benchmarks/results."""
    text = f"{text}\n\n{provenance()}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text)


def _git(*arguments: str) -> str:
    """Return what git prints, or nothing where git is not installed or fails."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
