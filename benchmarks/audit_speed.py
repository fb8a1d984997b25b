"""Measure time and memory of an audit, beside WeightWatcher in one run; the two take turns.

python benchmarks/audit_speed.py            # writes benchmarks/results/audit_speed.md; a quarter of an hour, 2 GB of disk
python benchmarks/audit_speed.py --quick    # one round each, a checkpoint of 0.1 GB, prints only
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from provenance import alternate, median_ratio, provenance, table, write
from safetensors.torch import load_file, save_file
from torch import nn

import htsr
from htsr.compat.crosscheck import quiet_weightwatcher
from htsr.demo.run import trained_transformer
from htsr.spectra.threads import one_thread

# Code that defines ``run(path)``, an audit, in a process of its own.
AUDIT = {
    "htsr": "import htsr, sys; run = lambda path: htsr.analyze(path, progress=False)",
    "weightwatcher": """
import sys, weightwatcher, glob
from safetensors.torch import load_file
def run(path):
    tensors = {}
    for shard in glob.glob(path + "/*.safetensors"):
        tensors |= load_file(shard)
    weightwatcher.WeightWatcher(model=tensors).analyze()
""",
}
# Code that reports how far ``run`` raises the peak of resident memory, in KiB. Linux keeps that peak for each process, while
# getrusage would count the parent's, too.
MEASURE = """
import time
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before, start = peak(), time.perf_counter()
run(sys.argv[1])
print("measured", peak() - before, time.perf_counter() - start)
"""


def grams(tensors: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """Return the float64 Gram matrices that an audit computes."""
    matrices = [
        W.double().numpy() for W in tensors.values() if W.ndim == 2 and W.is_floating_point() and min(W.shape) > 2
    ]
    return [W.T @ W if W.shape[0] >= W.shape[1] else W @ W.T for W in matrices]


def convolutions() -> nn.Module:
    """Return the 3 x 3 convolutions of a small ResNet."""
    torch.manual_seed(0)
    widths = [64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512]
    return nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(widths)))


def large_matrices(quick: bool, rounds: int) -> list[list[object]]:
    """Return a row for each shape of a language model: seconds of an audit, of the bare linear algebra, and their ratio."""
    generator = torch.Generator().manual_seed(0)
    rows: list[list[object]] = []
    for N, M in [(512, 256)] if quick else [(4096, 4096), (11008, 4096)]:
        weight = (0.02 * torch.randn(N, M, generator=generator)).bfloat16()

        def bare(weight: torch.Tensor = weight) -> np.ndarray:
            W = weight.double().numpy()
            return np.linalg.eigvalsh(W.T @ W)

        seconds = alternate({"htsr": partial(htsr.analyze, weight, progress=False), "bare": bare}, rounds)
        medians = [statistics.median(values) for values in seconds.values()]
        rows.append([f"{N} x {M}", *medians, median_ratio(seconds["htsr"], seconds["bare"])])
    return rows


def write_checkpoint(folder: Path, gigabytes: float) -> None:
    """Write a sharded checkpoint: a vocabulary of 50257 x 1024 and layers of 1024 x 4096, float32."""
    generator = torch.Generator().manual_seed(0)
    layers = max(2, round((gigabytes * 1e9 - 50257 * 1024 * 4) / (1024 * 4096 * 4)))
    if gigabytes >= 1:
        save_file({"embed.weight": torch.randn(50257, 1024, generator=generator)}, folder / "model-0.safetensors")
    for shard, start in enumerate(range(0, layers, 16), start=1):
        tensors = {
            f"layers.{i}.weight": torch.randn(4096, 1024, generator=generator)
            for i in range(start, min(start + 16, layers))
        }
        save_file(tensors, folder / f"model-{shard}.safetensors")


def measure_peak(program: str, folder: Path) -> tuple[float, float]:
    """Return the megabytes above the import and the seconds of an audit in a process of its own."""
    code = AUDIT[program] + MEASURE
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    line = next(line for line in result.stdout.splitlines() if line.startswith("measured"))
    extra, seconds = line.split()[1:]
    return int(extra) * 1024 / 1e6, float(seconds)


def compare_times(programs: dict[str, Callable[[], object]], against: str, rounds: int) -> list[list[object]]:
    """Return a row for each program: its median seconds, and how many times as long ``against`` takes."""
    seconds = alternate(programs, rounds)
    return [
        [name, statistics.median(values), median_ratio(seconds[against], values)] for name, values in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round each, a checkpoint of 0.1 GB, no file")
    quick = parser.parse_args().quick
    rounds = 1 if quick else 7

    tensors, convs = load_file(trained_transformer()), convolutions()
    minilm_grams = grams(tensors)
    htsr.analyze(tensors, progress=False)  # draws and caches the nulls of these shapes
    htsr.analyze(convs, progress=False)
    with quiet_weightwatcher() as ww:
        default = compare_times(
            {
                "weightwatcher": lambda: ww.WeightWatcher(model=tensors).analyze(),
                "htsr": partial(htsr.analyze, tensors, progress=False),
                "htsr, bulk=False": partial(htsr.analyze, tensors, bulk=False, progress=False),
                "bare eigvalsh (numpy)": lambda: [np.linalg.eigvalsh(gram) for gram in minilm_grams],
                "bare eigvalsh (torch)": lambda: [
                    torch.linalg.eigvalsh(torch.from_numpy(gram)) for gram in minilm_grams
                ],
                "Gram matrices and eigvalsh (numpy)": lambda: [np.linalg.eigvalsh(gram) for gram in grams(tensors)],
            },
            "weightwatcher",
            rounds,
        )
        full = compare_times(
            {
                "weightwatcher": lambda: ww.WeightWatcher(model=tensors).analyze(mp_fit=True, randomize=True),
                "htsr": partial(htsr.analyze, tensors, randomize=True, progress=False),
            },
            "weightwatcher",
            1 if quick else 3,
        )
        resnet = compare_times(
            {
                "weightwatcher": lambda: ww.WeightWatcher(model=convs).analyze(),
                "htsr": partial(htsr.analyze, convs, progress=False),
            },
            "weightwatcher",
            rounds,
        )
    large = large_matrices(quick, 1 if quick else 5)
    with tempfile.TemporaryDirectory() as folder:
        generator = torch.Generator().manual_seed(0)
        file = Path(folder) / "forty.safetensors"
        save_file({f"w{i}": torch.randn(1024, 1024, generator=generator) for i in range(4 if quick else 40)}, file)

        def one_worker() -> None:
            with one_thread():
                htsr.analyze(file, progress=False)

        workers = compare_times(
            {
                "one worker, one BLAS thread": one_worker,
                "n_jobs=1, all threads": partial(htsr.analyze, file, progress=False),
                "n_jobs=2, one BLAS thread each": partial(htsr.analyze, file, n_jobs=2, progress=False),
            },
            "one worker, one BLAS thread",
            1 if quick else 3,
        )
    with tempfile.TemporaryDirectory() as folder:
        gigabytes = 0.1 if quick else 2.0
        write_checkpoint(Path(folder), gigabytes)
        memory = [[program, *reversed(measure_peak(program, Path(folder)))] for program in AUDIT]

    header = ["program", "median seconds", "weightwatcher / this"]
    large_header = [
        "bfloat16 matrix",
        "htsr, seconds",
        "float64 Gram matrix and numpy's eigvalsh, seconds",
        "htsr / these",
    ]
    sections = {
        "MiniLM, default settings": (header, default),
        "MiniLM, noise bulk and shuffles in both, nulls in htsr": (header, full),
        "Ten 3 x 3 convolutions, 64 to 512 channels": (header, resnet),
        "One large matrix, default settings": (large_header, large),
        "Forty matrices of 1024 x 1024, by workers": (["workers", "median seconds", "one worker / this"], workers),
        f"A sharded checkpoint of {gigabytes:g} GB": (["program", "seconds", "peak MB above the import"], memory),
    }  # fmt: skip
    lines = ["# Speed and memory of an audit"]
    for title, (names, rows) in sections.items():
        lines += ["", f"## {title}", "", *table(names, rows)]
    if quick:
        print("\n".join([*lines, "", provenance()]))
    else:
        write("audit_speed.md", "\n".join(lines))


if __name__ == "__main__":
    main()
