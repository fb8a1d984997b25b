"""What the runs of a study say: a table and a panel for each set-up, with n, intervals and the smallest difference that shows."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import study  # first: it lets provenance be found
from provenance import provenance, table

from htsr.training.store import seeds as statistics

LOWER, HIGHER, EQUAL, FEW = "lower", "higher", "not told apart", "too few seeds"
# Medians over the layers of a run, which a study may have kept.
SPECTRA = {"alpha": "{:.2f}", "stable_rank": "{:.1f}"} | {f"alpha_{share}": "{:.2f}" for share in (25, 50, 75, 100)}
# Of the differences that are compared beside the metric.
DIGITS = {"alpha": 2, "stable_rank": 1}


def carry_out(
    done: study.Study,
    cells: Sequence[study.Cell],
    text: str,
    tables: Callable[[study.Study, Sequence[study.Cell]], list[str]] | None = None,
) -> None:
    """Do the runs that are missing unless a report alone is asked for, and report on all that are there."""
    chosen = [cell for cell in cells if any(fnmatchcase(cell.name, pattern) for pattern in done.options.cells)]
    if not done.options.report:
        done.complete(chosen)
    runs = done.runs()
    compared_runs = runs[runs["stage"] == (study.FINAL if done.final else study.TUNING)]
    with_runs = [cell for cell in cells if cell.name in set(compared_runs["cell"])]
    lines = (tables or comparisons)(done, with_runs)
    report = "\n".join(
        [f"# {text.splitlines()[0]}", "", *text.strip().splitlines()[1:], "", *lines, "", _machines(done)]
    )
    print(report)
    if not done.options.quick:
        _beside_tables(done, ".md").write_text(f"{report}\n")
        if tables is None:
            picture(done, with_runs)


def overview(done: study.Study, cells: Sequence[study.Cell], metric: str, digits: int) -> list[str]:
    """Return the lines of one table: a line for each cell, a column for each arm of the first cell but its baseline."""
    arms = [arm for arm in cells[0].arms if arm != cells[0].baseline]
    rows = []
    for cell in cells:
        found = compared(done.runs(), cell, metric)
        texts = _differences(found, digits)
        if any(texts.values()):
            rows.append([cell.name, int(found["n"].min()), *(texts.get(arm, "") for arm in arms)])
    return ["", f"## All set-ups: {metric}", "", *table(["set-up", "n", *arms], rows)]


def _differences(found: pd.DataFrame, digits: int) -> dict[str, str]:
    """Return the difference of each arm with its interval, as text."""
    if "difference" not in found:
        return {}
    return {
        str(arm): interval_text(row["low"], row["high"], digits, row["difference"]) for arm, row in found.iterrows()
    }


def at_each_rate(done: study.Study, cell: study.Cell) -> list[str]:
    """Return the lines of tables of the metric and the spectra of each arm of a cell at each rate, over the seeds that tune."""
    runs = done.runs()
    runs = runs[(runs["cell"] == cell.name) & (runs["stage"] == study.TUNING)]
    rates = sorted(runs["lr"].unique())
    lines = ["", f"### {cell.name}: at each rate", "", "Mean (standard deviation) over the seeds that tune."]
    for column, form in {done.metric: "{:.4f}", **SPECTRA}.items():
        if column not in runs:
            continue
        found = runs.groupby(["arm", "lr"])[column].agg(["mean", "std"])
        texts = found.apply(lambda row, form=form: f"{form.format(row['mean'])} ({form.format(row['std'])})", axis=1)
        rows = [[arm, *(texts.get((arm, lr), "") for lr in rates)] for arm in cell.arms]
        lines += ["", *table([column, *(f"lr {lr:g}" for lr in rates)], rows)]
    return lines


def comparisons(done: study.Study, cells: Sequence[study.Cell]) -> list[str]:
    """Return the lines of a table for each cell, below that of all cells where the study has one."""
    lines = [
        f"Differences are those from the baseline, paired by seed, with 95 % intervals (Student's t, for each line by itself). "
        f"*Visible* is the true difference that so many seeds find in 80 % of studies. "
        f"{EQUAL.capitalize()}: the interval holds 0. (edge): no rate beyond this one was tried on one side."
    ]
    if done.overview and cells:
        for metric, digits in {done.metric: 3, **DIGITS}.items():
            lines += overview(done, cells, metric, digits)
    for cell in cells:
        lines += ["", f"## {cell.name}"]
        for baseline in (cell.baseline, *cell.also):
            found = compared(done.runs(), cell, done.metric, baseline)
            lines += ["", f"{done.metric}, baseline {baseline}.", ""]
            spectra = [column for column in SPECTRA if column in found]
            header = ["arm", "lr", "n", "mean", "sd", "difference", "95 % interval", "verdict", "visible", *spectra]
            lines += table(header, [_row(arm, row, spectra) for arm, row in found.iterrows()])
        for column, digits in DIGITS.items():
            if column in done.runs():
                texts = _differences(compared(done.runs(), cell, column), digits)
                lines += [
                    "",
                    f"{column}, less that of {cell.baseline}: {'; '.join(f'{a} {t}' for a, t in texts.items() if t)}",
                ]
        if done.overview:
            lines += at_each_rate(done, cell)
    return lines


def compared(runs: pd.DataFrame, cell: study.Cell, metric: str, baseline: str = "") -> pd.DataFrame:
    """Return a row for each arm of a cell: rate, mean, spectra, and the difference from a baseline, paired by seed."""
    baseline = baseline or cell.baseline
    final = runs[(runs["cell"] == cell.name) & (runs["stage"] == study.FINAL)]
    # Where the grid grew later, the best rate changed: the last one counts.
    final = final[final["lr"] == final.groupby("arm")["lr"].transform("last")]
    table_of_runs = final.assign(run=final["arm"], value=final[metric])[["run", "arm", "seed", "value"]]
    by_arm = final.groupby("arm")
    found = by_arm[metric].agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "n"})
    found = found.join(by_arm[["lr", *(column for column in SPECTRA if column in final)]].mean())
    tried = runs[(runs["cell"] == cell.name) & (runs["stage"] == study.TUNING)].groupby("arm")["lr"].agg(["min", "max"])
    found["at_edge"] = [arm not in tried.index or row["lr"] in tuple(tried.loc[arm]) for arm, row in found.iterrows()]
    order = [arm for arm in cell.arms if arm in found.index]
    if baseline in order:
        paired = statistics.paired(table_of_runs, "arm", baseline, None).set_index("arm")
        found = found.join(paired[["difference", "low", "high", "visible"]])
    return found.loc[order]


def verdict(low: float, high: float) -> str:
    """Return what an interval of a difference says."""
    if not low <= high:
        return FEW
    return LOWER if high < 0 else HIGHER if low > 0 else EQUAL


def interval_text(low: float, high: float, digits: int = 4, value: float | None = None) -> str:
    """Return an interval as text, after the value if there is one; nothing if there is no interval."""
    if not low <= high:
        return ""
    text = f"{low:+.{digits}f} to {high:+.{digits}f}"
    return text if value is None else f"{value:+.{digits}f} ({text})"


def _row(arm: str, row: pd.Series, spectra: Sequence[str]) -> list[object]:
    """Return the cells of an arm's line."""
    own = [SPECTRA[column].format(row[column]) for column in spectra]
    start = [
        arm,
        f"{row['lr']:g}{' (edge)' if row['at_edge'] else ''}",
        int(row["n"]),
        f"{row['mean']:.4f}",
        f"{row['sd']:.4f}",
    ]
    if "difference" not in row or np.isnan(row["difference"]):
        return [*start, "", "", "", "", *own]
    low, high = row["low"], row["high"]
    return [
        *start,
        f"{row['difference']:+.4f}",
        interval_text(low, high),
        verdict(low, high),
        f"{row['visible']:.4f}",
        *own,
    ]


def picture(done: study.Study, cells: Sequence[study.Cell]) -> None:
    """Draw the difference of each arm with its interval, a panel for each cell."""
    columns = min(3, len(cells))
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 3.2 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    for ax, cell in zip(axes.flat, cells, strict=False):
        found = compared(done.runs(), cell, done.metric).iloc[::-1]
        if "difference" not in found:
            continue
        places = np.arange(len(found))
        known = found["difference"].notna().to_numpy()
        margin = np.abs(found.loc[known, ["low", "high"]].to_numpy().T - found.loc[known, "difference"].to_numpy())
        ax.errorbar(found.loc[known, "difference"], places[known], xerr=margin, fmt="o", capsize=3)
        ax.axvline(0, color="0.6", linewidth=1)
        ax.set_ylim(-0.6, len(found) - 0.4)
        ax.set_yticks(places, [f"{arm} (n = {int(n)})" for arm, n in zip(found.index, found["n"], strict=True)])
        ax.set_xlabel(f"{done.metric.replace('_', ' ')}, less that of {cell.baseline}")
        ax.set_title(cell.name)
    figure.savefig(_beside_tables(done, ".png"), dpi=90)
    plt.close(figure)


def _beside_tables(done: study.Study, suffix: str) -> Path:
    """Return the path of the report or the picture, which stand where all results do."""
    return done.path.parents[1] / f"study_{done.name}{suffix}"


def _machines(done: study.Study) -> str:
    """Return on what the runs were done, from the runs, and what wrote the report."""
    runs = done.runs()
    devices = ", ".join(sorted(runs["machine"].dropna().unique())) if "machine" in runs else ""
    return f"{len(runs)} runs on {devices}. Report: {provenance()}"
