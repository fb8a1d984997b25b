"""Measure what a Monitor costs: its share of the demo's wall time at several cadences, inline and in the background; memory."""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from provenance import table, write

import htsr
from htsr.demo.gpt import GPT
from htsr.optim import HTMuon, parameter_groups

# Width and depth by millions of parameters. The first is the demo's own model.
SIZES = {"0.6 (demo)": (128, 3), "0.5": (96, 4), "5": (256, 6), "20": (512, 6)}
CONTEXT, BATCH = 128, 16
EVERYTHING = ("weights", "gradients", "momentum", "updates")


class Training:
    """The demo's model and optimizer on random bytes: an optimizer step costs the same whatever the text."""

    def __init__(self, size: str, adamw: bool = False) -> None:
        width, depth = SIZES[size]
        torch.manual_seed(0)
        self.model = GPT(CONTEXT, width, depth)
        groups = parameter_groups(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters()) if adamw else HTMuon(groups, lr=0.02)
        self.batch = torch.randint(256, (BATCH, CONTEXT + 1))

    def run(self, steps: int) -> float:
        """Return the seconds that ``steps`` steps take."""
        start = time.perf_counter()
        for _ in range(steps):
            loss = self.model.loss(self.batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - start


def cadences(rounds: int) -> list[list[object]]:
    """Let watched and unwatched training take turns of `every` steps; a watched turn ends when its analysis has ended."""
    rows: list[list[object]] = []
    for every in (10, 50, 100):
        for background in (False, True):
            plain, watched = Training("0.6 (demo)"), Training("0.6 (demo)")
            monitor = htsr.Monitor(
                watched.model, watched.optimizer, every=every, layers="blocks.*", background=background
            )
            ratios = []
            for _ in range(rounds):
                alone = plain.run(every)
                start = time.perf_counter()
                watched.run(every)
                while monitor.history.steps[-1] < monitor.step_count:
                    time.sleep(0.001)
                ratios.append((time.perf_counter() - start) / alone)
            monitor.close()
            mode = "background" if background else "inline"
            rows.append([every, mode, statistics.median(ratios) - 1, len(monitor.history)])
    return rows


def budgets(seconds: float) -> list[list[object]]:
    """Train with budget=0.02 for ``seconds`` at each size, inline, so that the wall time contains all that the Monitor does.

    The Monitor's clock gives its share, and so does the difference between the wall time and that of as many steps without a
    capture.
    """
    rows: list[list[object]] = []
    for size in ("0.5", "5", "20"):
        training = Training(size, adamw=True)
        training.run(2)
        start = time.perf_counter()
        monitor = htsr.Monitor(training.model, training.optimizer, budget=0.02)
        first = monitor.spent_seconds
        took = []
        while time.perf_counter() - start < seconds:
            took.append(training.run(1))
        monitor.close()
        wall = time.perf_counter() - start
        captured = set(monitor.history.steps)
        plain = statistics.mean(duration for step, duration in enumerate(took, 1) if step not in captured)
        outside = 1 - len(took) * plain / wall
        rows.append([size, wall, len(took), len(captured), first, monitor.spent_seconds / wall, outside])
    return rows


def memory() -> list[list[object]]:
    """Return the peak memory of a process that trains for a few steps, for each way of watching."""
    ways = {
        "no monitor": None,
        "inline": {},
        "background": {"background": True},
        "inline, gradients, momentum and updates too": {"capture": EVERYTHING},
    }
    rows: list[list[object]] = []
    for size in ("5", "20"):
        for way, options in ways.items():
            command = [sys.executable, __file__, "--peak", json.dumps([size, options])]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append([size, way, float(result.stdout)])
    return rows


def peak_memory(size: str, options: dict[str, object] | None) -> float:
    """Return the peak of this process's resident memory in MiB."""
    training = Training(size, adamw=True)
    if options is not None:
        with htsr.Monitor(training.model, training.optimizer, every=2, **options):
            training.run(4)
    else:
        htsr.analyze({"w": torch.randn(64, 64)})  # the first analysis imports libraries, which is not part of the cost
        training.run(4)
    with open("/proc/self/status") as status:  # getrusage would count the parent's peak, too
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="length of each run with a budget")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="5 seconds, one round, no file")
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak is not None:
        print(peak_memory(*options.peak))
        return
    if options.quick:
        options.seconds, options.rounds = 5.0, 1
    lines = [
        "The demo's GPT (18 matrices) with HTMuon: extra wall time of training with a Monitor, median over turns.",
        "",
    ]
    lines += table(["every", "analysis", "extra time / training", "captures"], cadences(options.rounds))
    lines += [
        "",
        "budget=0.02, inline, AdamW, all matrices: the Monitor's share of wall time, with the first capture, by its own clock",
        "and from outside, as the wall time beyond that of as many steps without a capture.",
        "",
    ]
    header = ["million parameters", "seconds", "steps", "captures", "first capture, s", "its clock", "from outside"]
    lines += table(header, budgets(options.seconds))
    lines += ["", "Peak memory of the process in MiB.", ""]
    lines += table(["million parameters", "monitor", "MiB"], memory())
    if options.quick:
        print("\n".join(lines))
    else:
        write("monitor_overhead.md", "\n".join(lines))


if __name__ == "__main__":
    main()
