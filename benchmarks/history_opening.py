"""Measure how long a run of 10,000 captures of 50 layers takes to open; each question has a process of its own."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from provenance import table, write

import htsr
from htsr.training.store.capture import Capture
from htsr.training.store.files import SCHEMA
from htsr.training.store.writer import RunWriter

LAYERS, WIDTH = 50, 64
QUESTIONS = {
    "steps": lambda history: history.steps,
    "scalars": lambda history: history.scalars,
    "alpha()": lambda history: history.alpha(),
    "groups": lambda history: history.groups,
    "details": lambda history: history.details,
    "one spectrum": lambda history: history.spectrum(history.steps[-1], "layer0"),
}


def write_run(run_dir: Path, captures: int) -> float:
    """Write a run and return the mean seconds of a capture."""
    torch.manual_seed(0)
    weights = {f"layer{number}": torch.randn(WIDTH, WIDTH) for number in range(LAYERS)}
    analysis = htsr.analyze(weights, progress=False)
    rows = [layer.row | {"quantity": "weights"} for layer in analysis]
    spectra = {("weights", name): spectrum for name, spectrum in analysis.spectra.items()}
    writer = RunWriter(run_dir, {"schema": SCHEMA, "htsr": htsr.__version__, "model": "noise", "optimizer": None}, 0)
    start = time.perf_counter()
    for number in range(captures):
        writer.save(Capture(10 * number, float(number), 0.1, rows, spectra, [{"lr": 0.1}]))
        writer.record(10 * number, {"loss": 1.0})
    return (time.perf_counter() - start) / captures


def ask(run_dir: str, question: str) -> float:
    """Return the seconds from opening a run to an answer."""
    htsr.esd(torch.eye(2))
    start = time.perf_counter()
    QUESTIONS[question](htsr.History(run_dir))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 captures, one round, no file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ask", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask is not None:
        print(ask(*options.ask))
        return
    captures = 300 if options.quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        seconds = write_run(Path(folder) / "run", captures)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        rows: list[list[object]] = []
        for question in QUESTIONS:
            command = [sys.executable, __file__, "--ask", json.dumps([f"{folder}/run", question])]
            took = [
                float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                for _ in range(1 if options.quick else options.rounds)
            ]
            rows.append([question, statistics.median(took)])
    lines = [
        f"{captures} captures of {LAYERS} layers of {WIDTH} x {WIDTH}: {size / 2**20:.0f} MiB. Writing a capture takes",
        f"{1000 * seconds:.1f} ms. Median seconds from `htsr.History(run_dir)` to the answer, without imports, each time in a",
        "new process:",
        "",
        *table(["question", "seconds"], rows),
    ]
    if options.quick:
        print("\n".join(lines))
    else:
        write("history_opening.md", "\n".join(lines))


if __name__ == "__main__":
    main()
