"""What a CUDA card makes of HTMuon, audits and the Monitor, in at most eight minutes and without a network.

    python benchmarks/gpu.py                         on a machine with a card; writes benchmarks/results/gpu.md
    python benchmarks/gpu.py --quick --device cpu    small shapes, anywhere; nothing is written

Each part says how long it took and, if it fails, why; the others still run, since a card may be lent only once.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from momenta import STEPS
from provenance import alternate, median_ratio, table, write
from torch.optim import Optimizer
from update_accuracy import POWERS, QUICK, cases, measure, report

import htsr
from htsr.demo.gpt import GPT
from htsr.optim import HTMuon, parameter_groups

LATEST_START = 240  # seconds; no part takes as long
ALPHA_TOLERANCE = 1e-6
LEARNING_RATE = 1e-6
MUON = "torch.optim.Muon"
Shapes = list[tuple[int, int]]


def gpt2_small(quick: bool) -> Shapes:
    """Return the matrices of the blocks of GPT-2 small."""
    width, blocks = (64, 2) if quick else (768, 12)
    return [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * blocks


def llama_1b(quick: bool) -> Shapes:
    """Return the matrices of four of the 16 blocks of Llama 3.2 1B: width 2048, 512 for key and value, MLP of 8192."""
    width, blocks = (64, 1) if quick else (2048, 4)
    attention = [(width, width), (width // 4, width), (width // 4, width), (width, width)]
    return [*attention, (4 * width, width), (4 * width, width), (width, 4 * width)] * blocks


def optimizers(params: list[torch.nn.Parameter]) -> tuple[dict[str, Optimizer], list[str]]:
    """Return all optimizers that can be had here, and why others cannot."""

    def dion_muon(triton: bool) -> Optimizer:
        from dion import Muon

        return Muon(params, lr=LEARNING_RATE, nesterov=True, use_triton=triton)

    def gram_newton_schulz_muon(kernels: bool) -> Optimizer:
        from gram_newton_schulz import Muon

        return Muon(params, lr=LEARNING_RATE, ns_use_kernels=kernels)

    ways: dict[str, Callable[[], Optimizer]] = {
        MUON: lambda: torch.optim.Muon(params, lr=LEARNING_RATE),
        "HTMuon, default": lambda: HTMuon(params, lr=LEARNING_RATE),
        "HTMuon, p = 0": lambda: HTMuon(params, lr=LEARNING_RATE, power=0.0),
        "HTMuon, p = 1/2": lambda: HTMuon(params, lr=LEARNING_RATE, power=0.5),
        "HTMuon, compile": lambda: HTMuon(params, lr=LEARNING_RATE, compile=True),
        "dion's Muon": lambda: dion_muon(triton=False),
        "dion's Muon, use_triton": lambda: dion_muon(triton=True),
        "gram-newton-schulz's Muon": lambda: gram_newton_schulz_muon(kernels=True),
        "gram-newton-schulz's Muon, without its kernels": lambda: gram_newton_schulz_muon(kernels=False),
        "torch.optim.AdamW": lambda: torch.optim.AdamW(params, lr=LEARNING_RATE),
    }
    made, refused = {}, []
    for name, make in ways.items():
        try:
            optimizer = make()
            optimizer.step()  # kernels may fail only where they are built
            made[name] = optimizer
        except Exception as error:  # of other people's packages, on a machine nobody has seen
            refused.append(f"- {name}: {_reason(error)}")
    return made, refused


def steps(device: str, quick: bool) -> list[str]:
    """Time a step of each optimizer on bfloat16 parameters whose gradients are noise."""
    lines: list[str] = []
    for title, shapes in (("GPT-2 small", gpt2_small(quick)), ("4 blocks of a 1B model", llama_1b(quick))):
        draw = torch.Generator().manual_seed(0)
        params = [
            torch.nn.Parameter(0.02 * torch.randn(shape, generator=draw).to(device, torch.bfloat16)) for shape in shapes
        ]
        for p in params:
            p.grad = 1e-3 * torch.randn(p.shape, generator=draw).to(device, torch.bfloat16)
        made, refused = optimizers(params)

        def synchronised(optimizer: Optimizer) -> Callable[[], None]:
            def run() -> None:
                optimizer.step()
                if device != "cpu":
                    torch.cuda.synchronize()

            return run

        seconds = alternate({name: synchronised(optimizer) for name, optimizer in made.items()}, 2 if quick else 10)
        rows: list[list[object]] = [
            [name, f"{1e3 * statistics.median(values):.3g}", f"{median_ratio(values, seconds[MUON]):.2f}"]
            for name, values in seconds.items()
        ]
        lines += ["", f"{title}: {len(params)} matrices.", ""]
        lines += [*table(["step", "median ms", f"this / {MUON}"], rows), *refused]
    return lines[1:]


def accuracy(device: str, quick: bool) -> list[str]:
    """Measure the error of the default update on the card, as update_accuracy.py does on a CPU."""
    counts = QUICK if quick else {(256, 128): 1, (768, 768): 1, (3072, 768): 1}
    powers = (0.0, 0.125, 1.0) if quick else POWERS
    last_step = STEPS[0] if quick else STEPS[2]
    return report(measure(list(cases(counts, last_step, True, device)), powers, device))


def audit(device: str, quick: bool) -> list[str]:
    """Compare an audit on the card with one on the CPU, row by row."""
    from llama_checkpoint import write_llama

    size = {"blocks": 1, "hidden": 64, "mlp": 160, "vocabulary": 256} if quick else {"blocks": 4}
    analyses, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        write_llama(Path(folder), **size)
        htsr.analyze({"w": torch.randn(64, 64)}, device=device)  # the first call starts CUDA
        for where in (None, device):
            start = time.perf_counter()
            analyses[where] = htsr.analyze(folder, device=where, progress=False).details
            seconds[where] = time.perf_counter() - start
    here, there = analyses[None].set_index("name"), analyses[device].set_index("name")
    difference = (here["alpha"] - there["alpha"]).abs().max()
    verdict = "within" if difference <= ALPHA_TOLERANCE else "NOT within"
    return [
        f"{len(here)} matrices. The CPU took {seconds[None]:.1f} s, in which it drew the nulls that were not kept on disk, "
        f"and the {device} {seconds[device]:.1f} s. The largest difference of alpha is {difference:.2g}, {verdict} "
        f"{ALPHA_TOLERANCE:g}; the status of {(here['status'] != there['status']).sum()} layers differs."
    ]


def monitor(device: str, quick: bool) -> list[str]:
    """Measure the extra time of training with a Monitor, in turns with training without one."""
    width, depth, every, rounds = (64, 1, 2, 1) if quick else (768, 4, 20, 3)

    def training() -> Callable[[], None]:
        torch.manual_seed(0)
        model = GPT(128, width, depth).to(device)
        optimizer = HTMuon(parameter_groups(model))
        batch = torch.randint(256, (16, 129), device=device)
        trained.append((model, optimizer))

        def run() -> None:
            for _ in range(every):
                optimizer.zero_grad()
                model.loss(batch).backward()
                optimizer.step()
            if device != "cpu":
                torch.cuda.synchronize()

        return run

    trained: list[tuple[GPT, HTMuon]] = []
    rows: list[list[object]] = []
    for background in (False, True):
        plain, watched = training(), training()
        model, optimizer = trained[-1]
        with htsr.Monitor(model, optimizer, every=every, layers="blocks.*", background=background) as watching:

            def watched_turn(watched: Callable[[], None] = watched, watching: htsr.Monitor = watching) -> None:
                watched()
                while max(watching.history.steps, default=-1) < watching.step_count:
                    time.sleep(0.001)

            seconds = alternate({"plain": plain, "watched": watched_turn}, rounds)
        rows.append(
            [
                every,
                "background" if background else "inline",
                f"{1e3 * statistics.median(seconds['plain']) / every:.3g}",
                f"{100 * (median_ratio(seconds['watched'], seconds['plain']) - 1):.1f}",
            ]
        )
    title = (
        f"A GPT of width {width} and depth {depth} with HTMuon; the turn of a Monitor ends when its analysis has ended."
    )
    return [title, "", *table(["every", "analysis", "ms a step", "extra time, %"], rows)]


PARTS = {
    "Optimizer steps in bfloat16": steps,
    "Accuracy of the default update": accuracy,
    "A Monitor's overhead": monitor,
    "Audit of a LLaMA-shaped checkpoint": audit,
}


def _reason(error: Exception) -> str:
    """Return the first line of an error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes; nothing is written")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="*", choices=[part.__name__ for part in PARTS.values()], help="all by default")
    options = parser.parse_args()
    if options.device == "cpu" and not options.quick:
        parser.error("expected a CUDA device or --quick")
    card = torch.cuda.get_device_name() if options.device != "cpu" else "none"
    lines, begin = [f"Card: {card}; CUDA {torch.version.cuda}."], time.perf_counter()
    for title, part in PARTS.items():
        if options.parts and part.__name__ not in options.parts:
            continue
        lines += ["", f"## {title}", ""]
        start = time.perf_counter()
        try:
            if start - begin > LATEST_START:
                raise TimeoutError(f"left out, because {start - begin:.0f} s had passed")
            lines += part(options.device, options.quick)
        except Exception as error:  # the machine goes back soon, so that the other parts must not wait for a repair
            if options.quick and not isinstance(error, ImportError):
                raise
            lines.append(_reason(error))
        lines += ["", f"({time.perf_counter() - start:.0f} s)"]
        print(f"{title}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        if not options.quick:
            write("gpu.md", "\n".join(lines))  # after each part, in case that the next one does not end
    if options.quick:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
