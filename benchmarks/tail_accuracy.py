"""Measure the tail fits beside WeightWatcher and powerlaw: bias, spread, coverage, size and power of the tests, time.

    python benchmarks/tail_accuracy.py            # writes benchmarks/results/tail_accuracy.md and .png
    python benchmarks/tail_accuracy.py --quick    # a twentieth of the draws, prints only

Exact Pareto samples of different alphas are powers of each other, and every step of a fit follows that power
(tests/tails/test_resampling.py), so the coverage is the same for every alpha.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from provenance import RESULTS, alternate, median_ratio, provenance, table, write

from htsr import fit_power_law
from htsr.compat.crosscheck import quiet_weightwatcher
from htsr.plots.style import BLUE, GREY, VERMILION, axes_for, figure_of
from htsr.tails import hill
from htsr.tails.xmin_scan import scan_best

RESAMPLES = 200
Draw = Callable[[np.random.Generator], np.ndarray]


def pareto(rng: np.random.Generator, n: int, alpha: float) -> np.ndarray:
    return (1 - rng.random(n)) ** (-1 / (alpha - 1))


def tail_on_body(rng: np.random.Generator, n: int, alpha: float, share: float) -> np.ndarray:
    """Draw a Pareto tail from 1 on and a uniform body below."""
    size = round(share * n)
    return np.concatenate([pareto(rng, size, alpha), rng.uniform(0.05, 1, n - size)])


def correlated(rng: np.random.Generator, M: int, Q: int, alpha: float) -> np.ndarray:
    """Draw eigenvalues of Z diag(t) Z^T with Pareto t: heavy-tailed correlations, as in trained layers."""
    W = rng.normal(size=(Q * M, M)) * np.sqrt(pareto(rng, M, alpha))
    return np.linalg.eigvalsh(W.T @ W)


def wishart(rng: np.random.Generator, N: int, M: int) -> np.ndarray:
    W = rng.normal(size=(N, M))
    return np.linalg.eigvalsh(W.T @ W)


def inverse_wishart(rng: np.random.Generator, M: int) -> np.ndarray:
    """Draw 1 / lambda of a square Gaussian matrix, whose law has a tail of exactly 3/2."""
    return 1 / wishart(rng, M, M)


def shifted_exponential(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.exponential(size=n) + 0.5


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.lognormal(size=n)


def intervals(task: tuple[str, Draw, float, int]) -> list[object]:
    """Return bias, spread and coverage on one ensemble."""
    name, draw, truth, draws = task
    rows = []
    for seed in range(draws):
        fit = fit_power_law(draw(np.random.default_rng([seed, 1])))
        low, high = fit.confidence_interval(n_boot=RESAMPLES, seed=seed)
        naive = abs(fit.alpha - truth) <= 1.96 * fit.sigma
        rows.append(
            (fit.alpha, fit.alpha_bias_corrected, hill(fit.values), naive, low <= truth <= high, high - low, fit.sigma)
        )
    alpha, corrected, hills, naive_in, ours_in, width, sigma = np.array(rows, dtype=np.float64).T
    error = alpha - truth
    return [
        name, truth, draws, error.mean(), error.std(), np.sqrt((error**2).mean()), corrected.mean() - truth,
        hills.mean() - truth, naive_in.mean(), ours_in.mean(), np.median(width), np.median(3.92 * sigma),
    ]  # fmt: skip


def points(task: tuple[str, Draw, float, int]) -> list[object]:
    """Return bias and spread on one ensemble, and the bias of powerlaw with its default bounds on alpha."""
    name, draw, truth, draws = task
    import powerlaw

    ours, theirs = [], []
    for seed in range(draws):
        x = draw(np.random.default_rng([seed, 2]))
        ours.append(fit_power_law(x).alpha)
        if seed < draws // 10:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                theirs.append(float(powerlaw.Fit(x, verbose=0).power_law.alpha))
    error, other = np.array(ours) - truth, np.array(theirs) - truth
    other_mean = other.mean() if len(other) else float("nan")
    return [name, truth, draws, error.mean(), error.std(), np.sqrt((error**2).mean()), other_mean]


def rejections(task: tuple[str, Draw, int]) -> list[object]:
    """Return how often goodness of fit and each alternative rule the power law out at 0.1."""
    name, draw, draws = task
    rows = []
    for seed in range(draws):
        fit = fit_power_law(draw(np.random.default_rng([seed, 3])))
        favoured = [fit.compare(other).favours == other for other in ("lognormal", "exponential")]
        rows.append((fit.goodness_of_fit(n_boot=100, seed=seed) <= 0.1, *favoured))
    return [name, draws, *np.array(rows).mean(axis=0)]


def timings(quick: bool) -> list[str]:
    """Return the time of a scan beside WeightWatcher and powerlaw, which take turns, and of resampling."""
    import powerlaw

    lines = ["| n | htsr ms | WeightWatcher / htsr | powerlaw 2.0 / htsr |", "|---|---|---|---|"]
    for n in (1000, 4096, 16384):
        x = np.sort(pareto(np.random.default_rng(n), n, 2.5))
        with quiet_weightwatcher():
            from weightwatcher.WW_powerlaw import WWFit

            programs = {"htsr": lambda x=x: scan_best(x)}
            if n <= 4096:
                programs["weightwatcher"] = lambda x=x: WWFit(x)
                programs["powerlaw"] = lambda x=x: powerlaw.Fit(x, verbose=0)
            seconds = alternate(programs, 3 if quick else 7)
        ratios = [
            f"{median_ratio(seconds[name], seconds['htsr']):.0f}" if name in seconds else ""
            for name in ("weightwatcher", "powerlaw")
        ]
        lines.append(f"| {n} | {1e3 * statistics.median(seconds['htsr']):.2f} | {' | '.join(ratios)} |")
    fit = fit_power_law(pareto(np.random.default_rng(0), 1000, 2.5))
    start = time.perf_counter()
    fit.goodness_of_fit(n_boot=200, seed=1)
    middle = time.perf_counter()
    fit.confidence_interval(n_boot=500, seed=2)
    end = time.perf_counter()
    lines += [
        "",
        f"At n = 1000: goodness of fit, 200 resamples {middle - start:.2f} s; interval, 500 resamples {end - middle:.2f} s.",
    ]
    return lines


def picture(rows: list[list[object]]) -> None:
    exact = [row for row in rows if str(row[0]).startswith("Pareto n")]
    n = [int(str(row[0]).split("=")[1]) for row in exact]
    axes = axes_for(None, 1, 2, width=9, height=3.4)
    left, right = axes[0]
    left.axhspan(0.93, 0.97, color="#eeeeee")
    left.axhline(0.95, color=GREY, linewidth=0.8, linestyle=":")
    left.plot(n, [row[9] for row in exact], "o-", color=BLUE, label="htsr")
    left.plot(n, [row[8] for row in exact], "o-", color=VERMILION, label="alpha ± 1.96 sigma (WeightWatcher)")
    left.set_ylabel("coverage of 95 % intervals", fontsize=9)
    right.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    right.plot(n, [row[3] for row in exact], "o-", color=VERMILION, label="alpha")
    right.plot(n, [row[6] for row in exact], "o-", color=BLUE, label="alpha_bias_corrected")
    right.set_ylabel("bias, exact Pareto with alpha = 3", fontsize=9)
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("number of values", fontsize=9)
        ax.legend(fontsize=8, frameon=False)
    figure_of(axes).savefig(RESULTS / "tail_accuracy.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws, no file")
    quick = parser.parse_args().quick

    def draws(count: int) -> int:
        return max(10, count // 20) if quick else count

    exact = {50: 1500, 100: 2000, 250: 1500, 500: 1000, 1000: 1000, 2000: 500, 4096: 400}
    interval_tasks: list[tuple[str, Draw, float, int]] = [
        (f"Pareto n={n}", partial(pareto, n=n, alpha=3.0), 3.0, draws(count)) for n, count in exact.items()
    ]
    interval_tasks += [
        (f"tail {share:.0%}, n={n}", partial(tail_on_body, n=n, alpha=3.0, share=share), 3.0, draws(400))
        for share in (0.1, 0.3, 0.5)
        for n in (300, 1000)
    ]
    interval_tasks += [
        (f"correlated, Q={Q}", partial(correlated, M=256, Q=Q, alpha=alpha), alpha, draws(100))
        for Q in (1, 2, 4)
        for alpha in (2.0, 3.0)
    ]
    interval_tasks.append(("inverse Wishart 256 x 256", partial(inverse_wishart, M=256), 1.5, draws(200)))
    point_tasks: list[tuple[str, Draw, float, int]] = [
        (f"Pareto n={n}", partial(pareto, n=n, alpha=alpha), alpha, draws(300))
        for n in (50, 200, 1000)
        for alpha in (1.5, 2.0, 3.0, 4.0, 6.0)
    ]
    rejection_tasks: list[tuple[str, Draw, int]] = [
        (f"{name}, n={n}", draw(n), draws(80))
        for n in (300, 1000)
        for name, draw in {
            "Pareto": lambda n: partial(pareto, n=n, alpha=3.0),
            "tail 30%": lambda n: partial(tail_on_body, n=n, alpha=3.0, share=0.3),
            "Marchenko-Pastur Q=2": lambda n: partial(wishart, N=2 * n, M=n),
            "lognormal": lambda n: partial(lognormal, n=n),
            "exponential": lambda n: partial(shifted_exponential, n=n),
        }.items()
    ]
    time_lines = timings(quick)
    with ProcessPoolExecutor(2) as pool:
        interval_rows = list(pool.map(intervals, interval_tasks))
        point_rows = list(pool.map(points, point_tasks))
        rejection_rows = list(pool.map(rejections, rejection_tasks))

    lines = ["# Accuracy of the tail fits", "", "## Intervals", ""]
    lines += [
        f"The nominal coverage is 95 %, with {RESAMPLES} resamples each. `sigma` is the interval alpha +- 1.96 sigma of",
        "WeightWatcher and powerlaw.",
        "",
    ]
    lines += table(
        ["ensemble", "truth", "draws", "bias", "sd", "RMSE", "bias, corrected", "bias, Hill n/2", "coverage sigma",
         "coverage htsr", "width htsr", "width sigma"],
        interval_rows,
    )  # fmt: skip
    lines += [
        "",
        "## Point estimates",
        "",
        "WeightWatcher's fit equals htsr's to the last bit; powerlaw 2.0 has its default options and a tenth of the draws.",
    ]
    lines += ["", *table(["ensemble", "truth", "draws", "bias", "sd", "RMSE", "bias powerlaw 2.0"], point_rows)]
    lines += [
        "",
        "## Tests",
        "",
        "Share of draws in which goodness of fit (100 resamples) or Vuong's test rules the power law out at 0.1.",
    ]
    lines += [
        "",
        *table(["ensemble", "draws", "goodness of fit", "lognormal favoured", "exponential favoured"], rejection_rows),
    ]
    lines += ["", "## Time", "", *time_lines]
    if quick:
        print("\n".join([*lines, "", provenance()]))
    else:
        write("tail_accuracy.md", "\n".join(lines))
        picture(interval_rows)


if __name__ == "__main__":
    main()
