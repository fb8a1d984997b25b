"""Does a learning rate survive a wider model? The best rate of Muon over widths 64 to 512, under each rule for shapes.

    python benchmarks/studies/width_transfer.py --small    # hours on two cores; goes on where it was stopped
    python benchmarks/studies/width_transfer.py            # 300 steps at a larger batch: on a card
    python benchmarks/studies/width_transfer.py --report   # tables of the runs that are there

A byte-level GPT learns Python's standard library with HTMuon at p = 0 and ``adjust_lr`` as the arm names, and with AdamW. The
best rate of a seed is the lowest point of a parabola through the lowest loss and its neighbours, over the logarithm of the
rate; the drift is the exponent of the width with which it moves. Theory asks for 0 with sqrt(out / in) and for -1/2 with 0.2
sqrt(max(out, in)) (arXiv 2310.17813), and for -1 with Adam.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from language import BASE, METRIC, SMALL, run
from provenance import table
from report import carry_out
from study import Cell, Study, arguments, rates

from htsr.training.store import seeds as statistics

WIDTHS = (64, 128, 256, 512)
ARMS = {
    "original": {"power": 0.0, "adjust_lr": "original"},
    "spectral": {"power": 0.0, "adjust_lr": "spectral"},
    "match_rms_adamw": {"power": 0.0, "adjust_lr": "match_rms_adamw", "lrs": rates(0.02, 7)},
    "AdamW": {"optimizer": "adamw", "lrs": rates(0.001, 7)},
}
GRID_SEEDS = (0, 1, 2, 3, 4)


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each width, the same but for that."""
    return [Cell(f"width {width}", ARMS, rates(0.02), "original", {**settings, "width": width}) for width in WIDTHS]


CELLS, SMALL_CELLS = cells(BASE), cells({**SMALL, "batch": 4, "steps": 50})
QUICK = [
    Cell(f"width {width}", {"spectral": ARMS["spectral"]}, (0.05, 0.1, 0.2), "spectral",
         {"width": width, "depth": 1, "batch": 2, "steps": 2})
    for width in (8, 16)
]  # fmt: skip


def best_rate(losses: pd.Series) -> float:
    """Return the rate at the lowest point of the parabola through the lowest loss and its neighbours; NaN at an edge.

    Args:
        losses: The losses, by the rate.
    """
    losses = losses.sort_index()
    place = int(losses.to_numpy().argmin())
    if place in (0, len(losses) - 1):
        return float("nan")
    some = losses.iloc[place - 1 : place + 2]
    a, b, _ = np.polyfit(np.log2(some.index.to_numpy()), some.to_numpy(), 2)
    return float(2 ** (-b / (2 * a)))


def drifts(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the best rate for each arm, width and seed, and for each arm the exponent of its drift, one value a seed."""
    runs = runs.assign(width=runs["cell"].str.removeprefix("width ").astype(int))
    best = (
        runs.groupby(["arm", "width", "seed"])
        .apply(lambda group: best_rate(group.set_index("lr")[METRIC]))
        .rename("lr")
        .reset_index()
    )
    exponents = []
    for (arm, seed), group in best.dropna().groupby(["arm", "seed"]):
        if len(group) > 1:
            exponents.append((arm, seed, np.polyfit(np.log2(group["width"]), np.log2(group["lr"]), 1)[0]))
    return best, pd.DataFrame(exponents, columns=["arm", "seed", "exponent"])


def tables(study: Study, cells: list[Cell]) -> list[str]:
    """Return the lines of the report: best rates over widths, and exponents."""
    best, exponents = drifts(study.runs())
    widths = sorted(best["width"].unique())
    means = best.groupby(["arm", "width"])["lr"].apply(lambda lr: 2 ** np.log2(lr).mean())
    rows = []
    for arm in cells[0].arms:
        mine = exponents.loc[exponents["arm"] == arm, "exponent"].to_numpy()
        if len(mine):
            low, high = statistics.interval(mine)
            rates_of = [f"{means.get((arm, width), np.nan):.4g}" for width in widths]
            rows.append([arm, *rates_of, f"{mine.mean():+.2f}", f"{low:+.2f} to {high:+.2f}", len(mine)])
    return table(["rule", *(f"best lr at {width}" for width in widths), "exponent", "95 % interval", "n"], rows)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="fewer layers, smaller batches, 50 steps: for two cores")
    options = parser.parse_args()
    name = "width_transfer_small" if options.small else "width_transfer"
    study = Study(name, run, METRIC, True, options, tuning=GRID_SEEDS, final=())
    carry_out(study, QUICK if options.quick else SMALL_CELLS if options.small else CELLS, __doc__, tables)


if __name__ == "__main__":
    main()
