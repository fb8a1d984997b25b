"""Audit a checkpoint with the names and shapes of LLaMA-7B: time, memory, remaining time, resumption, workers.

    python benchmarks/audit_llm.py               # an eighth of its depth, 2.1 GB: writes benchmarks/results/audit_llm.md
    python benchmarks/audit_llm.py --depth 32    # all of it: 13.5 GB of disk, an hour
    python benchmarks/audit_llm.py --quick       # small matrices, prints only

Every audit is a command in a terminal of its own, as a user starts it; nothing but its checkpoint and its nulls exists before.
"""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llama_checkpoint import BLOCKS, write_llama
from provenance import provenance, table, write

QUICK = {"blocks": 2, "hidden": 256, "mlp": 688, "vocabulary": 2000}
PARTS = ("one", "two", "resume", "dask")
SHARES = (0.1, 0.25, 0.5, 0.75)
SECONDS_BETWEEN_SAMPLES = 0.1
BAR = re.compile(r"analyze: +(\d+)%.*?\| [\d:]+<([\d:?]+)(?:, (\d+)/(\d+) layers)?")
RESTORED = re.compile(r"(\d+) of (\d+) layers were already analysed")


@dataclass
class Run:
    """What was seen of one command: its seconds, its memory, and the seconds that its bar said would remain."""

    seconds: float = 0.0
    peak: float = 0.0
    text: str = ""
    bar: list[tuple[float, int, float]] = field(default_factory=list)

    def remaining(self, share: float) -> tuple[float, float]:
        """Return what the bar said after a share of the time, and what was true; NaN if there was no bar yet."""
        before = [line for line in self.bar if line[0] <= share * self.seconds]
        if not before:
            return math.nan, math.nan
        shown, _, said = before[-1]
        return said, self.seconds - shown


def watch(command: Sequence[str], cache: Path, stop: Callable[[int], bool] = lambda percent: False) -> Run:
    """Run a command in a terminal until it ends, or kill it and its children once ``stop`` says so of the bar's percentage."""
    run = Run()
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 160))
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True,
        env=os.environ | {"HTSR_CACHE_DIR": str(cache)},
    )  # fmt: skip
    os.close(theirs)

    def sample() -> None:
        while process.poll() is None:
            run.peak = max(run.peak, memory(process.pid))
            time.sleep(SECONDS_BETWEEN_SAMPLES)

    sampler = threading.Thread(target=sample)
    sampler.start()
    stopped = False
    for line in terminal_lines(ours):
        run.text += line + "\n"
        if found := BAR.search(line):
            percent, said, *_ = found.groups()
            run.bar.append((time.perf_counter() - start, int(percent), seconds_of(said)))
            if not stopped and stop(int(percent)):
                os.killpg(process.pid, signal.SIGKILL)
                stopped = True
    process.wait()
    run.seconds = time.perf_counter() - start
    sampler.join()
    os.close(ours)
    if process.returncode and not stopped:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}\n{run.text}")
    return run


def terminal_lines(terminal: int) -> Iterator[str]:
    """Yield what a program writes to a terminal, split where it goes to the beginning of a line, until it ends."""
    rest = ""
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # Linux says so that nobody has the other side open
            block = b""
        if not block:
            yield rest
            return
        *lines, rest = re.split(r"[\r\n]+", rest + block.decode(errors="replace"))
        yield from lines


def seconds_of(clock: str) -> float:
    """Return the seconds of 01:02:03, 02:03 or ?."""
    if "?" in clock:
        return math.nan
    return sum(60**place * int(part) for place, part in enumerate(reversed(clock.split(":"))))


def memory(session: int) -> float:
    """Return the resident megabytes of all processes of a session; pages that they share count for each."""
    kilobytes = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getsid(int(status.parent.name)) != session:
                continue
            kilobytes += sum(
                int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS")
            )
        except (OSError, ProcessLookupError):
            continue  # it has just ended
    return kilobytes * 1024 / 1e6


def import_memory() -> float:
    """Return the resident megabytes of a process that has imported what an audit needs and has done nothing."""
    code = """
import htsr, htsr.audit.analysis, joblib, pandas, safetensors.torch
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(result.stdout) * 1024 / 1e6


def audit_command(checkpoint: Path, output: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "htsr", "audit", str(checkpoint), "-o", str(output), *options]


def audit_on_dask(checkpoint: str, output: str) -> None:
    """Audit with two dask workers of one thread, which read the shards for themselves."""
    import joblib
    from distributed import Client, LocalCluster

    import htsr

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        htsr.analyze(checkpoint).save(output)


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Return the rows of an audit that wrote JSON."""
    rows: list[dict[str, Any]] = json.loads(output.read_text())["details"]
    return rows


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """Return in words how far the numbers of two tables lie apart."""
    if [row["name"] for row in one] != [row["name"] for row in other]:
        return "other layers"
    largest = 0.0
    for a, b in zip(one, other, strict=True):
        for name, value in a.items():
            if isinstance(value, float) and isinstance(b[name], float):
                largest = max(largest, abs(value - b[name]) / max(abs(value), 1e-300))
            elif value != b[name]:
                return f"{a['name']}: {name} {value!r} and {b[name]!r}"
    return f"{largest:.0e}" if largest else "none"


def remaining_rows(name: str, run: Run) -> Iterator[list[object]]:
    for share in SHARES:
        said, true = run.remaining(share)
        if math.isnan(said):
            yield [name, f"{share:.0%}", "no bar yet", "", ""]
        else:
            yield [name, f"{share:.0%}", f"{said:.0f}", f"{true:.0f}", f"{said / true - 1:+.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small matrices, prints only")
    parser.add_argument("--depth", type=int, default=BLOCKS // 8, help="number of blocks (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the checkpoint lies for the time of the benchmark")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: everything)"
    )
    parser.add_argument("--dask", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dask:
        audit_on_dask(*options.dask)
        return
    shapes = QUICK if options.quick else {"blocks": options.depth}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        lines = measure(Path(folder), shapes, options.parts)
    if options.quick or len(options.parts) < len(PARTS):
        print("\n".join([*lines, "", provenance()]))
    else:
        write("audit_llm.md", "\n".join(lines))


def measure(folder: Path, shapes: dict[str, int], parts: Sequence[str]) -> list[str]:
    """Write the checkpoint, run what was asked for, and return the lines of the result."""
    checkpoint, warm = folder / "llama", folder / "nulls"
    checkpoint.mkdir()
    size = write_llama(checkpoint, **shapes)
    imported = import_memory()
    runs: dict[str, Run] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    resumed: list[str] = []

    def audit(name: str, cache: Path, *arguments: str) -> None:
        output = folder / f"{len(runs)}.json"
        runs[name] = watch(audit_command(checkpoint, output, *arguments), cache)
        rows[name] = rows_of(output)

    if "one" in parts:
        audit("one job, first run", warm)
    if "two" in parts:
        audit("--n-jobs 2, first run", folder / "nulls of two", "--n-jobs", "2")
    if "resume" in parts:
        output = folder / "resumed.json"
        journal = output.with_name(f"{output.name}.htsr-journal")
        runs["killed after half"] = watch(audit_command(checkpoint, output), warm, stop=lambda percent: percent >= 50)
        kept = len(list(journal.glob("*.npz")))
        runs["--resume"] = watch(audit_command(checkpoint, output, "--resume"), warm)
        rows["--resume"] = rows_of(output)
        found = RESTORED.search(runs["--resume"].text)
        resumed = [
            f"The journal held {kept} layers when the audit was killed. `--resume` took over "
            f"{found[1] if found else 'none'} of {found[2] if found else len(rows['--resume'])} layers and removed the journal: "
            f"{not journal.exists()}."
        ]
    if "dask" in parts and find_spec("distributed") is not None:
        output = folder / "dask.json"
        runs["dask, two workers"] = watch([sys.executable, __file__, "--dask", str(checkpoint), str(output)], warm)
        rows["dask, two workers"] = rows_of(output)

    first = next(iter(rows.values()))
    names = ["audit", "seconds", "peak MB above the import", "largest relative difference of a number from the first"]
    lines = [
        "# An audit of LLaMA-7B's shapes",
        "",
        f"{shapes['blocks']} of {BLOCKS} blocks, {size / 1e9:.2f} GB in bfloat16, {len(first)} matrices, Gaussian noise with a "
        "power law of signal. Each audit is a process of its own, timed from its start to its end, that writes JSON. Memory is "
        f"that of the process and its children, less the {imported:.0f} MB of one process that has imported htsr. In a first "
        "run, the nulls of no shape are known.",
        "",
        *table(
            names,
            [
                [name, f"{run.seconds:.1f}", f"{run.peak - imported:.0f}", difference(first, rows[name]) if name in rows else ""]
                for name, run in runs.items()
            ],
        ),
        *(["", *resumed] if resumed else []),
        "",
        "## Remaining time",
        "",
        "What the bar said after a share of the time, and how long it truly took from then to the end of the process.",
        "",
        *table(
            ["audit", "after", "said (s)", "true (s)", "error"],
            [row for name, run in runs.items() if name != "killed after half" for row in remaining_rows(name, run)],
        ),
    ]  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
