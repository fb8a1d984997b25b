"""How often the 95 % interval of alpha holds the true one, and how uniform the goodness of fit is, by body, share and size.

    python benchmarks/coverage.py            # everything: benchmarks/results/coverage.md, half an hour on two cores
    python benchmarks/coverage.py --quick    # few draws of 100 and 300 values, printed only

A Pareto tail starts at 1; the body below is one of four laws up to its quantile 1 - share, so that on average the tail holds that
share of the n values. Two kinds of data follow no power law and show the power of the goodness of fit.
"""

import argparse
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from provenance import table, write
from scipy import stats

from htsr import fit_power_law
from htsr.tails.resampling import RELIABLE_TAIL

RESAMPLES, DRAWS, FEWER_DRAWS = 100, 150, 60
SIZES, SHARES, ALPHAS = (100, 300, 1000, 4096), (0.1, 0.2, 0.3, 0.5), (2.3, 3.5)
# The second alpha is drawn at these sizes only.
SIZES_OF_SECOND = (1000,)
Quantiles = Callable[[np.ndarray], np.ndarray]
Cell = tuple[str, int, float, float, int]


def marchenko_pastur(u: np.ndarray, Q: float = 2.0) -> np.ndarray:
    """Return quantiles of the Marchenko-Pastur law."""
    low, high = (1 - Q**-0.5) ** 2, (1 + Q**-0.5) ** 2
    x = np.linspace(low, high, 20001)
    shares = np.cumsum(np.sqrt(np.clip((high - x) * (x - low), 0, None)) / x)
    return np.interp(u, shares / shares[-1], x)


BODIES: dict[str, Quantiles] = {
    "lognormal": stats.lognorm(1.0).ppf,
    "exponential": stats.expon.ppf,
    "Weibull 1.5": stats.weibull_min(1.5).ppf,
    "Marchenko-Pastur": marchenko_pastur,
}
NO_POWER_LAW: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "shifted exponential": lambda rng, n: rng.exponential(size=n) + 1,
    "lognormal": lambda rng, n: rng.lognormal(size=n),
}


def tail_on_body(rng: np.random.Generator, body: str, n: int, share: float, alpha: float) -> np.ndarray:
    """Return n values, on average a share of them in the tail; a share of 1 leaves no body."""
    k = rng.binomial(n, share)
    tail = (1 - rng.random(k)) ** (-1 / (alpha - 1))
    below = BODIES[body](rng.random(n - k) * (1 - share)) / BODIES[body](np.array(1 - share)) if k < n else []
    return np.concatenate([below, tail])


def measured(cell: Cell) -> list[object]:
    """Return the coverage, the width and the p-values of one cell."""
    body, n, share, alpha, draws = cell
    rng = np.random.default_rng(zlib.crc32(repr(cell[:4]).encode()))
    rows = []
    for seed in range(draws):
        fit = fit_power_law(tail_on_body(rng, body, n, share, alpha))
        if fit.status == "failed":
            continue
        low, high = fit.confidence_interval(n_boot=RESAMPLES, seed=seed)
        p = fit.goodness_of_fit(n_boot=RESAMPLES, seed=seed)
        sigma = abs(fit.alpha - alpha) <= 1.96 * fit.sigma
        rows.append((low <= alpha <= high, bool(fit.interval_caution), high - low, sigma, p <= 0.1, p <= 0.5))
    cells = np.array(rows, dtype=np.float64)
    covered, caution, width, sigma, p_10, p_50 = (*cells[:, :2].mean(0), np.median(cells[:, 2]), *cells[:, 3:].mean(0))
    name, values = body if share < 1 else "none", round(n * share)
    return [name, n, f"{share:.0%}", alpha, values, len(rows), covered, sigma, width, caution, p_10, p_50]


def rejected(task: tuple[str, int, int]) -> list[object]:
    """Return how often the goodness of fit rules a power law out that is none."""
    name, n, draws = task
    rng = np.random.default_rng(zlib.crc32(repr(task[:2]).encode()))
    fits = [fit_power_law(NO_POWER_LAW[name](rng, n)) for _ in range(draws)]
    p = np.array([fit.goodness_of_fit(n_boot=RESAMPLES, seed=seed) for seed, fit in enumerate(fits)])
    return [name, n, draws, np.mean(p <= 0.1), np.mean(p <= 0.05)]


def main() -> None:
    """Draw, fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few draws of 100 and 300 values, printed only")
    quick = parser.parse_args().quick
    sizes = SIZES[:2] if quick else SIZES

    def draws(n: int) -> int:
        return 5 if quick else FEWER_DRAWS if n > 1000 else DRAWS

    cells: list[Cell] = [("lognormal", n, 1.0, ALPHAS[0], draws(n)) for n in sizes]
    for alpha in ALPHAS:
        at = [n for n in sizes if alpha == ALPHAS[0] or n in SIZES_OF_SECOND]
        cells += [(body, n, share, alpha, draws(n)) for body in BODIES for n in at for share in SHARES]
    tasks = [(name, n, draws(n)) for name in NO_POWER_LAW for n in sizes]
    with ProcessPoolExecutor(2) as pool:
        rows, power = list(pool.map(measured, cells)), list(pool.map(rejected, tasks))
    enough = [row for row in rows if row[4] >= RELIABLE_TAIL]  # type: ignore[operator]
    covered = np.array([row[6] for row in enough], dtype=np.float64)
    said = f"In the {len(enough)} cells with at least {RELIABLE_TAIL} values in the tail the interval holds the true alpha in "
    if len(enough):
        within = np.mean((covered >= 0.92) & (covered <= 0.98))
        said += (
            f"{covered.min():.1%} to {covered.max():.1%} of the draws; in {within:.0%} of these cells in 92 to 98 %."
        )
    lines = [
        "# Intervals of alpha and goodness of fit, on and off exact power laws",
        "",
        f"Nominal 95 %, {RESAMPLES} resamples each. `caution` is the share of fits whose `interval_caution` says that the "
        f"interval is unreliable, `p <= 0.1` that of fits whose goodness of fit is at most 0.1. {said}",
        "",
        *table(
            ["body", "n", "in the tail", "alpha", "values there", "fits", "coverage", "alpha +- 1.96 sigma", "median width",
             "caution", "p <= 0.1", "p <= 0.5"],
            rows,
        ),
        "",
        "## Data that follow no power law",
        "",
        *table(["data", "n", "draws", "p <= 0.1", "p <= 0.05"], power),
    ]  # fmt: skip
    if quick:
        print("\n".join(lines))
    else:
        write("coverage.md", "\n".join(lines))


if __name__ == "__main__":
    main()
