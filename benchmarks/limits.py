"""Where two statements of the documentation stop holding.

    python benchmarks/limits.py            # everything: benchmarks/results/limits.md, about ten minutes
    python benchmarks/limits.py --quick    # a twentieth of the draws, small matrices, printed only

The 95 % interval of alpha on different bodies below the tail, and what a shuffle of trained weights leaves behind.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from provenance import table, write
from scipy.special import ndtr, ndtri

from htsr import analyze, fit_power_law
from htsr.demo.run import trained_transformer
from htsr.weights import open_source

ALPHA, SHARE, RESAMPLES = 3.0, 0.3, 200
# Inverse distribution functions on (0, 1) of what lies below the tail, which starts at 1. The density of the tail at 1 is
# SHARE * (ALPHA - 1) = 0.6. "continuous": the body's density there is the same; "smooth": so is its slope.
BODIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uniform": lambda u: 0.05 + 0.95 * u,
    "exponential, continuous": lambda u: truncated_exponential(u, rate=0.299),
    "exponential, steep": lambda u: truncated_exponential(u, rate=10 / 3),
    "lognormal of width 1, continuous": lambda u: truncated_lognormal(u, width=1.0, z=-0.092),
    "lognormal of width 0.5, continuous": lambda u: truncated_lognormal(u, width=0.5, z=0.664),
    "lognormal of width 0.414, smooth": lambda u: truncated_lognormal(u, width=0.4141, z=0.8282),
}


def truncated_exponential(u: np.ndarray, rate: float) -> np.ndarray:
    return -np.log1p(-u * -math.expm1(-rate)) / rate


def truncated_lognormal(u: np.ndarray, width: float, z: float) -> np.ndarray:
    """A lognormal kept below 1, which lies ``z`` standard deviations above its median (in logarithms)."""
    return np.exp(width * (ndtri(u * ndtr(z)) - z))


def coverage(body: Callable[[np.ndarray], np.ndarray], n: int, draws: int) -> list[object]:
    """Bias of alpha and coverage of both intervals, over draws of a Pareto tail on a body."""
    size = round(SHARE * n)
    rows = []
    for seed in range(draws):
        rng = np.random.default_rng([seed, 4])
        tail = (1 - rng.random(size)) ** (-1 / (ALPHA - 1))
        fit = fit_power_law(np.concatenate([tail, body(rng.random(n - size))]))
        low, high = fit.confidence_interval(n_boot=RESAMPLES, seed=seed)
        rows.append((fit.alpha - ALPHA, abs(fit.alpha - ALPHA) <= 1.96 * fit.sigma, low <= ALPHA <= high))
    bias, sigma, ours = np.array(rows, dtype=np.float64).mean(axis=0)
    return [draws, bias, sigma, ours]


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
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws, small matrices, printed only")
    quick = parser.parse_args().quick
    draws, seeds = (15, 1) if quick else (300, 3)

    lines = ["# Where two statements stop holding", "", "## Intervals of alpha by the body below the tail", ""]
    lines += [
        f"A Pareto tail with alpha {ALPHA:g} that holds 30 % of n values. Nominal 95 %, {RESAMPLES} resamples.",
        "",
    ]
    lines += table(
        ["body", "n", "draws", "bias", "coverage sigma", "coverage htsr"],
        [[name, n, *coverage(body, n, draws)] for name, body in BODIES.items() for n in (300, 1000)],
    )
    lines += ["", "## Shuffled layers", "", "The matrices of the demo's Transformer with at least 32 eigenvalues.", ""]
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
