"""What five programs say about the same pairs of models, and what that takes: htsr and four that do parts of ``htsr compare``.

The pairs are MiniLM, which comes trained in a package, and MiniLM after one change. weightprobe, weightscope, weightlens and
modeldiffr are run from an environment of their own, with those of their commands that read weights only:

    python -m venv peers
    peers/bin/pip install weightscope==0.4.3 weightprobe==0.2.0 mlx mlx-cpu weightlens==0.3.0 modeldiffr==0.9.3
    python benchmarks/compare_peers.py peers/bin    # writes benchmarks/results/compare_peers.md
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
from change_kinds import add_low_rank, prune, quantised, remove_direction
from provenance import RESULTS, provenance, table
from safetensors.torch import load_file, save_file

from htsr.demo.run import trained_transformer

Weights = dict[str, torch.Tensor]
Answer = Callable[[str], str]
"""Reads the answer out of what a program printed."""


def pairs(base: Weights) -> Iterator[tuple[str, Weights]]:
    """Yield what was done and the changed model."""

    def changed(change: Callable[[torch.Tensor], torch.Tensor], part: str = "") -> Weights:
        return {
            name: change(W) if W.ndim == 2 and W.is_floating_point() and re.search(part, name) else W.clone()
            for name, W in base.items()
        }

    def step(W: torch.Tensor) -> torch.Tensor:
        gradient = torch.randn_like(W) + 4 * torch.outer(torch.randn(len(W)), torch.randn(W.shape[1]))
        return W + 0.02 * W.norm() / gradient.norm() * gradient

    direction = torch.nn.functional.normalize(torch.randn(384), dim=0)
    yield "nothing", changed(torch.clone)
    yield "stored as bfloat16", {name: W.bfloat16() if W.is_floating_point() else W for name, W in base.items()}
    yield "8 bits by row and back", changed(lambda W: quantised(W, "int8", 0))
    yield "LoRA of rank 8 on query and value", changed(lambda W: add_low_rank(W, 8, 0.05), r"(query|value)\.weight")
    yield (
        "one direction out of 12 matrices",
        changed(lambda W: remove_direction(W, direction, 1.0), r"output\.dense\.weight"),
    )
    yield "half of the values to zero", changed(lambda W: prune(W, 0.5))
    yield "last block trained", changed(step, r"layer\.5\.")
    yield "all trained, by 2 %", changed(step)
    yield "other weights", changed(lambda W: W.std() * torch.randn_like(W))


def programs(peers: Path) -> dict[str, tuple[Callable[[Path, Path], list[str]], Answer]]:
    """Return for each program the command for two models, and how to read its answer."""

    def of_htsr(text: str) -> str:
        return next(line for line in text.splitlines()[2:] if line.strip()).split(". ")[0]

    def of_weightscope(text: str) -> str:
        found = re.search(r"classification: `(\w+)`, confidence: \*\*(\w+)\*\*", text)
        return f"{found[1]}, confidence {found[2]}" if found else "no classification"

    def of_weightprobe(text: str) -> str:
        found = json.loads(text)
        return f"{found['n_tensors_modified']} of {found['n_tensors_compared']} tensors modified"

    def of_spectral(text: str) -> str:
        return f"suspicion of an adapter {json.loads(text)['aggregate_suspicion']:.2f}"

    def of_weightlens(text: str) -> str:
        found = re.search(r"Diagnostics \((\d+)\)", text)
        return f"{found[1]} diagnostics" if found else "no answer"

    def of_modeldiffr(text: str) -> str:
        return "hash of the weights"

    return {
        "htsr compare A B": (lambda a, b: [sys.executable, "-m", "htsr", "compare", str(a), str(b)], of_htsr),
        "weightscope diff A B": (lambda a, b: [f"{peers}/weightscope", "diff", str(a), str(b)], of_weightscope),
        "weightprobe diff-base B": (
            lambda a, b: [f"{peers}/weightprobe", "diff-base", str(b), "--baseline", str(a), "--json"],
            of_weightprobe,
        ),
        "weightprobe spectral B": (lambda _, b: [f"{peers}/weightprobe", "spectral", str(b), "--json"], of_spectral),
        "weightlens analyze B": (
            lambda _, b: [f"{peers}/lens", "analyze", str(b / "model.safetensors")],
            of_weightlens,
        ),
        "modeldiffr fingerprint B": (lambda _, b: [f"{peers}/modeldiffr", "fingerprint", str(b)], of_modeldiffr),
    }


# Runs a command and writes what it took to the file named first. It is a process of its own, since the peak of memory of a child
# begins at that of its parent.
WATCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[2:], stderr=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
took = time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
open(sys.argv[1], "w").write(json.dumps(took))
"""


def measured(command: list[str]) -> tuple[str, float, float, float]:
    """Return what a command printed, its seconds on the clock and of processor time, and its peak of memory in MB."""
    with tempfile.NamedTemporaryFile("r") as took:
        done = subprocess.run(
            [sys.executable, "-S", "-c", WATCH, took.name, *command], stdout=subprocess.PIPE, text=True, check=True
        )
        seconds, processor, memory = json.load(took)
        return done.stdout, seconds, processor, memory


def main() -> None:
    """Make the pairs, run every program on each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path, help="the folder of the other programs")
    peers = parser.parse_args().peers
    torch.manual_seed(0)
    source = trained_transformer().parent
    base = load_file(source / "model.safetensors")
    answers, costs = [], defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder, "a"), Path(folder, "b")
        shutil.copytree(source, a)
        shutil.copytree(source, b)
        hashes = {}
        for what, weights in pairs(base):
            save_file({name: W.contiguous() for name, W in weights.items()}, b / "model.safetensors")
            row = [what]
            for name, (command, answer) in programs(peers).items():
                text, *cost = measured(command(a, b))
                costs[name].append(cost)
                if name.startswith("modeldiffr"):
                    hashes[name] = hashes.get(name) or measured(command(a, a))[0].split("weights root")[1].split()[0]
                    row.append("equal" if hashes[name] == text.split("weights root")[1].split()[0] else "different")
                else:
                    row.append(answer(text).replace("|", "/"))
            answers.append(row)
            seconds = (f"{of_program[-1][1]:.1f} s" for of_program in costs.values())
            print(*row, *seconds, sep=" | ", flush=True)
    names = list(programs(peers))
    lines = [
        "# What five programs say about the same pairs",
        "",
        "MiniLM (22.7 million values, 40 matrices) and MiniLM after one change. weightprobe spectral, weightlens and modeldiffr "
        "read one model at a time.",
        "",
        *table(["change", *names], answers),
        "",
        "Medians over the pairs, each run once; seconds include the start of Python.",
        "",
        *table(
            ["program", "seconds", "seconds of processor time", "peak of memory, MB"],
            [[name, *(f"{median(values):.1f}" for values in zip(*costs[name], strict=True))] for name in names],
        ),
        "",
        *table(
            ["change", "processor time of htsr / weightscope"],
            [
                [row[0], f"{of_htsr[1] / of_weightscope[1]:.2f}"]
                for row, of_htsr, of_weightscope in zip(answers, costs[names[0]], costs[names[1]], strict=True)
            ],
        ),
        "",
        "weightscope 0.4.3, weightprobe 0.2.0, weightlens 0.3.0, modeldiffr 0.9.3.",
        f"{provenance()}",
        "",
    ]
    (RESULTS / "compare_peers.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
