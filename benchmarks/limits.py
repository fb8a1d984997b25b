"""What a shuffle of trained weights leaves behind.

    python benchmarks/limits.py            # three shuffles: benchmarks/results/limits.md, two minutes
    python benchmarks/limits.py --quick    # one shuffle, printed only

Shuffled and Gaussian matrices of a trained Transformer's shapes, under two kinds of noise.
"""

import argparse
from collections import Counter

import pandas as pd
import torch
from provenance import table, write

from htsr import analyze
from htsr.demo.run import trained_transformer
from htsr.weights import open_source


def shuffled_phases(seeds: int) -> list[list[object]]:
    """How many trained, shuffled and Gaussian matrices have which phase."""
    weights = {layer.name: torch.as_tensor(layer.load()).float() for layer in open_source(trained_transformer()).layers}
    weights = {name: W for name, W in weights.items() if min(W.shape) >= 32}

    def both(name: str, matrices: dict[str, torch.Tensor]) -> list[list[object]]:
        return [
            row(name, null, analyze(matrices, null=null, progress=False).details) for null in ("gaussian", "entries")
        ]

    def row(name: str, null: str, details: pd.DataFrame) -> list[object]:
        counts = Counter(details["phase"])
        named = ("random-like", "bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed")
        return [name, null, len(details), *(counts[phase] for phase in named), (details["null_p_value"] < 0.05).sum()]

    rows = both("as trained", weights)
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        shuffled = {
            name: W.flatten()[torch.randperm(W.numel(), generator=generator)].view_as(W) for name, W in weights.items()
        }
        noise = {name: torch.randn(W.shape, generator=generator) for name, W in weights.items()}
        rows += [*both(f"shuffled, seed {seed}", shuffled), *both(f"Gaussian, seed {seed}", noise)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shuffle, printed only")
    quick = parser.parse_args().quick
    seeds = 1 if quick else 3
    lines = [
        "# What a shuffle leaves behind",
        "",
        "The matrices of the demo's Transformer with at least 32 eigenvalues.",
        "",
    ]
    lines += table(
        ["weights", "null", "matrices", "random-like", "bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed",
         "null_p_value < 0.05"],
        shuffled_phases(seeds),
    )  # fmt: skip
    if quick:
        print("\n".join(lines))
    else:
        write("limits.md", "\n".join(lines))


if __name__ == "__main__":
    main()
