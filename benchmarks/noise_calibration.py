"""Measure how well htsr tells noise from structure: false alarms, spikes found, phases, cost.

    python benchmarks/noise_calibration.py            # writes benchmarks/results/noise_calibration.md and .png
    python benchmarks/noise_calibration.py --quick    # a tenth of the draws, prints only
    python benchmarks/noise_calibration.py --laws     # only noise of other laws and planted structure, prints only

``htsr.analyze`` gets every matrix as float32. WeightWatcher's alpha is htsr's to the last bit (benchmarks/audit_minilm.py), so
its users would take a matrix with "alpha in 2 to 6" for well trained.
"""

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import torch
from provenance import RESULTS, alternate, median_ratio, provenance, table, write

import htsr
from htsr.audit.phases import PHASES, phase
from htsr.bulk.bbp import bbp_threshold
from htsr.bulk.marchenko_pastur import edges
from htsr.bulk.wishart import wishart_eigenvalues
from htsr.demo.run import trained_transformer
from htsr.plots.style import BLUE, VERMILION, axes_for, figure_of

LAW_SHAPES = [
    (64, 64), (128, 384), (384, 384), (384, 1536), (2048, 512), (1024, 1024), (64, 64, 3, 3),
]  # fmt: skip
SHAPES = [(64, 64), (128, 128), (256, 128), (256, 256), (1024, 512)]
Generator = np.random.Generator
Draw = Callable[[Generator, int, int], np.ndarray]


def gaussian(rng: Generator, N: int, M: int) -> np.ndarray:
    return rng.normal(size=(N, M))


def laplace(rng: Generator, N: int, M: int) -> np.ndarray:
    return rng.laplace(size=(N, M))


def uniform(rng: Generator, N: int, M: int) -> np.ndarray:
    return rng.uniform(-1, 1, size=(N, M))


def student(rng: Generator, N: int, M: int, freedom: float) -> np.ndarray:
    return rng.standard_t(freedom, size=(N, M))


def lognormal_rows(rng: Generator, N: int, M: int, sigma: float, draw: Draw = gaussian) -> np.ndarray:
    return draw(rng, N, M) * rng.lognormal(sigma=sigma, size=(N, 1))


def lognormal_both(rng: Generator, N: int, M: int) -> np.ndarray:
    return lognormal_rows(rng, N, M, 0.5) * rng.lognormal(sigma=0.5, size=M)


def folded_gains(rng: Generator, N: int, M: int) -> np.ndarray:
    """Return a uniform initialisation into which the gains of a LayerNorm were folded."""
    return uniform(rng, N, M) * (1 + 0.1 * rng.normal(size=M))


def masked(rng: Generator, N: int, M: int, share: float) -> np.ndarray:
    return gaussian(rng, N, M) * (rng.random((N, M)) >= share)


def block_masked(rng: Generator, N: int, M: int) -> np.ndarray:
    blocks = rng.random((-(-N // 16), -(-M // 16))) < 0.5
    return gaussian(rng, N, M) * np.kron(blocks, np.ones((16, 16)))[:N, :M]


def autoregressive(rng: Generator, N: int, M: int) -> np.ndarray:
    """Return rows of which each has a correlation of 0.2 with the one before."""
    W = gaussian(rng, N, M)
    for i in range(1, N):
        W[i] = 0.2 * W[i - 1] + np.sqrt(0.96) * W[i]
    return W


BEFORE_AND_NOW = ["draws", "phase not random-like, before", "now", "p < 0.05, before", "now"]
LAW_HEADER = ["noise", "shape", *BEFORE_AND_NOW, "explained by"]
SIGNAL_HEADER = ["structure", "shape", *BEFORE_AND_NOW]

# Noise that is not Gaussian with one variance, ...
NOISE_LAWS: dict[str, Draw] = {
    "Gaussian": gaussian,
    "t(5)": partial(student, freedom=5),
    "t(3)": partial(student, freedom=3),
    "Laplace": laplace,
    "uniform": uniform,
    "uniform, gains of 10 %": folded_gains,
    "rows lognormal(.1)": partial(lognormal_rows, sigma=0.1),
    "rows lognormal(.5)": partial(lognormal_rows, sigma=0.5),
    "rows lognormal(1)": partial(lognormal_rows, sigma=1.0),
    "rows and columns lognormal(.5)": lognormal_both,
    "rows lognormal(.5), t(5)": partial(lognormal_rows, sigma=0.5, draw=partial(student, freedom=5)),
    "mask 50 %": partial(masked, share=0.5),
    "mask 90 %": partial(masked, share=0.9),
}
# ... and independent numbers of which a rule has made structure.
STRUCTURES: dict[str, Draw] = {"AR(.2) rows": autoregressive, "16 x 16 block mask": block_masked}


def pareto(rng: Generator, n: int, alpha: float) -> np.ndarray:
    return (1 - rng.random(n)) ** (-1 / (alpha - 1))


def orthonormal(rng: Generator, rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def planted(rng: Generator, N: int, evals: np.ndarray) -> np.ndarray:
    """Return a matrix with these eigenvalues of W^T W and random singular vectors."""
    M = len(evals)
    return (orthonormal(rng, N, M) * np.sqrt(evals)) @ orthonormal(rng, M, M).T


def spiked(rng: Generator, N: int, M: int, strengths: np.ndarray) -> np.ndarray:
    """Return noise with signals of these strengths, in units of the BBP threshold."""
    k = len(strengths)
    signal = (orthonormal(rng, N, k) * (strengths * bbp_threshold(N, M))) @ orthonormal(rng, M, k).T
    return gaussian(rng, N, M) + signal


def correlated(rng: Generator, N: int, M: int, variances: np.ndarray) -> np.ndarray:
    """Return noise whose rows have a diagonal covariance: what trained layers look like."""
    return gaussian(rng, N, M) * np.sqrt(variances)


def mixed(rng: Generator, N: int, M: int, variances: np.ndarray) -> np.ndarray:
    """Return noise whose rows have a dense covariance with these eigenvalues: no scale of a row or column explains it."""
    return correlated(rng, N, M, variances) @ orthonormal(rng, M, M)


def random_like(rng: Generator, N: int, M: int) -> np.ndarray:
    return rng.choice(np.array([gaussian, laplace, uniform]))(rng, N, M)


def bleeding_out(rng: Generator, N: int, M: int) -> np.ndarray:
    return spiked(rng, N, M, rng.uniform(1.3, 1.8, rng.integers(2, 13)))


def bulk_and_spikes(rng: Generator, N: int, M: int) -> np.ndarray:
    return spiked(rng, N, M, rng.uniform(2.2, 20, rng.integers(1, 13)))


def bulk_decay(rng: Generator, N: int, M: int) -> np.ndarray:
    kind = rng.integers(4)
    if kind == 0:
        return mixed(rng, N, M, rng.exponential(size=M))
    if kind == 1:
        return mixed(rng, N, M, rng.lognormal(sigma=0.6, size=M))
    if kind == 2:
        return mixed(rng, N, M, np.geomspace(1, 0.01, M))
    return mixed(rng, N, M, pareto(rng, M, 6.0))


def heavy_tailed(rng: Generator, N: int, M: int) -> np.ndarray:
    """Return a heavy-tailed spectrum; independent heavy-tailed entries would be noise."""
    if rng.integers(2) == 0:
        return planted(rng, N, pareto(rng, M, rng.uniform(2, 4)))
    return mixed(rng, N, M, pareto(rng, M, rng.uniform(1.6, 2.8)))


def rank_collapse(rng: Generator, N: int, M: int) -> np.ndarray:
    rank = int(rng.uniform(0.02, 0.95) * M)
    return gaussian(rng, N, rank) @ gaussian(rng, rank, M)


ENSEMBLES: dict[str, Draw] = dict(
    zip(PHASES, [random_like, bleeding_out, bulk_and_spikes, bulk_decay, heavy_tailed, rank_collapse], strict=False)
)


SIGNALS: dict[str, Draw] = {
    **{
        f"rank {rank}, {times:g} times BBP": partial(
            lambda rng, N, M, rank, times: spiked(rng, N, M, np.full(rank, times)), rank=rank, times=times
        )
        for rank in (1, 4)
        for times in (0.9, 1.1, 1.5, 2.0)
    },
    "covariance Pareto(3)": lambda rng, N, M: mixed(rng, N, M, pareto(rng, M, 3.0)),
    "covariance lognormal(.2)": lambda rng, N, M: mixed(rng, N, M, rng.lognormal(sigma=0.2, size=M)),
}


def row(W: np.ndarray) -> dict[str, object]:
    return htsr.analyze({"w": torch.from_numpy(W).float()}, progress=False)["w"].row


def noise_rows(task: tuple[str, Draw, int, int, int]) -> list[object]:
    """Return the false alarms on noise of one law and shape."""
    name, draw, N, M, draws = task
    rows = [row(draw(np.random.default_rng([seed, 1]), N, M)) for seed in range(draws)]
    return [
        f"{name} {N} x {M}", draws, np.mean([2 < r["alpha"] < 6 for r in rows]),
        np.mean([r["phase"] != "random-like" for r in rows]), np.mean([r["num_spikes"] > 0 for r in rows]),
        np.mean([r["bulk_p_value"] < 0.01 for r in rows]), np.mean([r["null_p_value"] < 0.05 for r in rows]),
    ]  # fmt: skip


def draws_of_law(task: tuple[str, tuple[int, ...], int]) -> pd.DataFrame:
    """Return the rows of many matrices of one law and shape; the slices of a convolution are independent."""
    name, shape, draws = task
    draw, found = (NOISE_LAWS | STRUCTURES)[name], []
    for seed in range(draws):
        rng = np.random.default_rng([seed, *shape, *name.encode()])  # a balanced matrix forgets its scales
        slices = [draw(rng, *shape[:2]) for _ in range(math.prod(shape[2:]))]
        found.append(row(np.stack(slices, -1).reshape(shape)))
    return pd.DataFrame(found)


def law_rows(task: tuple[str, tuple[int, ...], int]) -> list[object]:
    """Return how often noise of one law and shape passes for structure, by Gaussian noise and by noise that keeps its law."""
    name, shape, draws = task
    found = draws_of_law(task)
    before = [phase(r).name != "random-like" for r in found.to_dict("records")]
    named = found["explained_by"][found["explained_by"] != ""].value_counts()
    return [
        name, " x ".join(map(str, shape)), draws, np.mean(before), (found["phase"] != "random-like").mean(),
        (found["gaussian_p_value"] < 0.05).mean(), (found["null_p_value"] < 0.05).mean(),
        f"{named.index[0]} ({named.iloc[0]})" if len(named) else "",
    ]  # fmt: skip


def signal_rows(task: tuple[str, int, int, int]) -> list[object]:
    """Return how often planted structure is found, before and now."""
    name, N, M, draws = task
    found = []
    for seed in range(draws):
        rng = np.random.default_rng([seed, 8])
        found.append(row(SIGNALS[name](rng, N, M)))
    rows = pd.DataFrame(found)
    before = [phase(r).name not in ("random-like", "undecided") for r in found]
    return [
        name, f"{N} x {M}", draws, np.mean(before), (~rows["phase"].isin(["random-like", "undecided"])).mean(),
        (rows["gaussian_p_value"] < 0.05).mean(), (rows["null_p_value"] < 0.05).mean(),
    ]  # fmt: skip


def pareto_rows(task: tuple[float, int, int]) -> list[object]:
    """Return how often htsr calls planted Pareto spectra noise, in square and 2 : 1 matrices."""
    alpha, n, draws = task
    rows = []
    for seed in range(draws):
        rng = np.random.default_rng([seed, 2])
        rows.append(row(planted(rng, n * (1 + seed % 2), pareto(rng, n, alpha))))
    phases = [r["phase"] for r in rows]
    return [
        f"{alpha:g}", n, draws, np.mean([phase == "random-like" for phase in phases]),
        np.mean([phase == "heavy-tailed" for phase in phases]), np.mean([r["null_p_value"] < 0.05 for r in rows]),
    ]  # fmt: skip


def energy_rows(task: tuple[int, int, float, int]) -> list[object]:
    """Return the error of the fitted edge under a spike that holds a share of the energy, on noise of variance 1."""
    N, M, share, draws = task
    strength = np.array([np.sqrt(share / (1 - share) * N * M) / bbp_threshold(N, M)])
    rows = [row(spiked(np.random.default_rng([seed, 3]), N, M, strength)) for seed in range(draws)]
    errors = np.array([r["bulk_max"] / edges(N, M)[1] - 1 for r in rows])
    return [
        f"{N} x {M}",
        share,
        draws,
        errors.mean(),
        np.abs(errors).max(),
        np.mean([r["num_spikes"] == 1 for r in rows]),
    ]


def power_rows(task: tuple[int, int, float, int]) -> list[object]:
    """Return how often htsr finds a spike of one strength, in units of the BBP threshold."""
    N, M, strength, draws = task
    found = [
        row(spiked(np.random.default_rng([seed, 4]), N, M, np.array([strength])))["num_spikes"] > 0
        for seed in range(draws)
    ]
    return [f"{N} x {M}", strength, draws, np.mean(found)]


def false_spikes(task: tuple[int, int, int]) -> list[object]:
    """Return how often htsr finds a spike in Gaussian noise: many draws of the bidiagonal model."""
    N, M, draws = task
    rng = np.random.default_rng([N, M, 5])
    fits = [htsr.fit_marchenko_pastur(wishart_eigenvalues(N, M, rng), N, M) for _ in range(draws)]
    alarms = np.mean([fit.num_spikes > 0 for fit in fits])
    error = np.std([fit.sigma for fit in fits]) / np.mean([fit.sigma_error for fit in fits])
    return [f"{N} x {M}", draws, alarms, error]


def phase_rows(task: tuple[str, int]) -> list[object]:
    """Return how often htsr calls the matrices of one ensemble by each phase."""
    truth, draws = task
    called = []
    for seed in range(draws):
        rng = np.random.default_rng([seed, 6])
        M = int(rng.choice([200, 256, 384, 512]))
        W = ENSEMBLES[truth](rng, M * int(rng.choice([1, 2, 4])), M)
        called.append(row(W)["phase"])
    return [truth, *(called.count(name) for name in PHASES)]


def cost(quick: bool) -> list[str]:
    """Return what the noise baseline adds to an audit of the trained Transformer; the two programs take turns."""
    path = trained_transformer()
    htsr.analyze(path)
    programs = {
        "all": partial(htsr.analyze, path, progress=False),
        "without": partial(htsr.analyze, path, bulk=False, progress=False),
    }
    seconds = alternate(programs, 3 if quick else 11)
    ratio = median_ratio(seconds["all"], seconds["without"])
    return [
        f"Bulk, null and phase take {100 * (ratio - 1):.0f} % more time than `analyze(bulk=False)` on the 39 matrices of the",
        f"trained Transformer, once the nulls of its shapes are drawn (median of {len(seconds['all'])} alternating runs).",
    ]


def picture(noise: list[list[object]], confusion: list[list[object]]) -> None:
    axes = axes_for(None, 1, 2, width=10, height=4)
    left, right = axes[0]
    y = np.arange(len(noise))[::-1]
    left.barh(y + 0.2, [line[2] for line in noise], 0.38, color=VERMILION, label="alpha between 2 and 6")
    left.barh(y - 0.2, [line[3] for line in noise], 0.38, color=BLUE, label="htsr: phase is not random-like")
    left.axvline(0.05, color="#333333", linewidth=0.8, linestyle=":")
    left.set_yticks(y, [str(line[0]) for line in noise], fontsize=8)
    left.set_xlabel("share of pure noise that passes for structure", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    counts = np.array([line[1:] for line in confusion], dtype=float)
    right.imshow(counts, cmap="Blues", aspect="auto")
    right.grid(visible=False)
    for i, j in np.ndindex(counts.shape):
        if counts[i, j]:
            shade = "white" if counts[i, j] > counts.max() / 2 else "black"
            right.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", fontsize=8, color=shade)
    right.set_xticks(range(len(PHASES)), PHASES, rotation=35, ha="right", fontsize=8)
    right.set_yticks(range(len(confusion)), [str(line[0]) for line in confusion], fontsize=8)
    right.set_xlabel("called", fontsize=9)
    right.set_ylabel("generated as", fontsize=9)
    figure_of(axes).savefig(RESULTS / "noise_calibration.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws, no file")
    parser.add_argument(
        "--laws", action="store_true", help="only noise of other laws and planted structure, prints only"
    )
    options = parser.parse_args()
    quick = options.quick

    def draws(count: int) -> int:
        return max(10, count // 10) if quick else count

    torch.set_num_threads(1)
    law_tasks = [(name, s, draws(200)) for s in LAW_SHAPES[: 3 if quick else None] for name in NOISE_LAWS | STRUCTURES]
    signal_tasks = [
        (name, *s, draws(200)) for s in [(300, 300), (600, 300)][: 1 if quick else None] for name in SIGNALS
    ]
    if options.laws:
        for header, found in ((LAW_HEADER, map(law_rows, law_tasks)), (SIGNAL_HEADER, map(signal_rows, signal_tasks))):
            print("\n".join(table(header, list(found))), flush=True)
        return
    cost_lines = cost(quick)
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        laws: dict[str, Draw] = {"Gaussian": gaussian, "Laplace": laplace, "uniform": uniform}
        noise = list(pool.map(noise_rows, [(n, d, *s, draws(200)) for n, d in laws.items() for s in SHAPES]))
        tails = list(pool.map(pareto_rows, [(a, n, draws(100)) for a in (2.0, 3.0, 4.0) for n in (200, 500)]))
        spiked_shapes = [(300, 300), (301, 300), (600, 300)]
        energy = list(pool.map(energy_rows, [(*s, f, draws(100)) for s in spiked_shapes for f in (0.5, 0.9)]))
        sides = [(300, 300), (600, 300), (1000, 500), (1000, 1000), (2000, 1000)]
        power = list(pool.map(power_rows, [(*s, t, draws(100)) for s in sides for t in (1.0, 1.1, 1.2, 1.3, 1.5)]))
        alarms = list(pool.map(false_spikes, [(*s, draws(min(4000, 260_000_000 // s[1] ** 2))) for s in SHAPES]))
        other = list(pool.map(law_rows, law_tasks))
        signals = list(pool.map(signal_rows, signal_tasks))
        confusion = list(pool.map(phase_rows, [(name, draws(100)) for name in ENSEMBLES]))

    sections = {
        "Noise": (
            "Independent entries of one law. WeightWatcher's users take `alpha in 2 to 6` for well trained.",
            ["noise", "draws", "alpha in 2 to 6", "phase not random-like", "a spike", "bulk_p_value < 0.01",
             "null_p_value < 0.05"],
            noise,
        ),
        "Noise of other laws": (
            "Before: compared with Gaussian noise (`null=\"gaussian\"`). Now: with noise that keeps scales and entries, the "
            "default. The last two laws are structure. A convolution has independent slices.",
            LAW_HEADER,
            other,
        ),
        "Planted structure": (
            "Spikes of a rank, each of a strength in units of the BBP threshold, and dense covariances, in Gaussian noise. "
            "Before and now as above.",
            SIGNAL_HEADER,
            signals,
        ),
        "Planted Pareto spectra": (
            "n eigenvalues; square and 2 : 1 matrices take turns.",
            ["alpha", "n", "draws", "called random-like", "called heavy-tailed", "null_p_value < 0.05"],
            tails,
        ),
        "A spike with most of the energy": (
            "Noise of variance 1 and one signal: relative error of the fitted upper edge.",
            ["shape", "share of energy", "draws", "mean error", "largest error", "exactly one spike"],
            energy,
        ),
        "Spikes found": (
            "Strength is the singular value of the signal over the BBP threshold. The level is 1 %.",
            ["shape", "strength", "draws", "found"],
            power,
        ),
        "Spikes on pure noise": (
            "The nominal rate is 1 %. The last column is the spread of sigma over its stated error.",
            ["shape", "draws", "false spikes", "sd / sigma_error"],
            alarms,
        ),
        "Phases": (
            "Each row is an ensemble and each column what htsr calls it. Sides are 200 to 2048.",
            ["", *PHASES],
            confusion,
        ),
    }  # fmt: skip
    lines = ["# Telling noise from structure"]
    for title, (text, header, rows) in sections.items():
        lines += ["", f"## {title}", "", text, "", *table(header, rows)]
    lines += ["", "## Cost", "", *cost_lines]
    if quick:
        print("\n".join([*lines, "", provenance()]))
        return
    write("noise_calibration.md", "\n".join(lines))
    picture(noise, confusion)


if __name__ == "__main__":
    main()
