"""How much the numbers of an audit move if the same network is trained again.

Three networks: pocketnet 0.3.0, whose package ships five trainings on five folds of the data; the demo's GPT, and a small
convolutional net on scikit-learn's digits, with ten seeds each of weights and batches.

    pip install --no-deps pocketnet==0.3.0
    python benchmarks/repeatability.py           # writes benchmarks/results/repeatability.md, half an hour
    python benchmarks/repeatability.py --quick   # two seeds, few steps, prints only
"""

import argparse
import importlib.util
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from provenance import RESULTS, provenance, table
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, relu

import htsr
from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.optim import HTMuon, parameter_groups

SEEDS, STEPS_OF_GPT, STEPS_OF_CNN, CONTEXT, BATCH = 10, 300, 600, 64, 16
# Its scatter hardly depends on alpha; ``htsr.comparison.retraining`` takes it from here.
LOG = "log(alpha - 1)"
# Smaller matrices say too little to be counted.
MIN_SIDE = 32
COLUMNS = (
    "alpha", LOG, "D", "num_pl_spikes", "stable_rank", "effective_rank", "entropy", "log_norm", "log_spectral_norm",
    "alpha_weighted", "log_alpha_norm", "num_spikes", "mp_softrank", "ERG_gap",
)  # fmt: skip


class CNN(nn.Module):
    """Digits to classes through four convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise((1, 48, 48, 96, 96))
        )
        self.hidden, self.head = nn.Linear(96, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = x.unflatten(1, (1, 8, 8))
        for convolution in self.convolutions:
            x = relu(convolution(x))
        return self.head(relu(self.hidden(x.mean((2, 3)))))


def train(model: nn.Module, loss: Callable[[torch.Generator], torch.Tensor], seed: int, steps: int) -> htsr.Analysis:
    """Train with HTMuon's defaults and return the audit."""
    draw = torch.Generator().manual_seed(1000 + seed)
    optimizer = HTMuon(parameter_groups(model), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.55 + 0.45 * math.cos(math.pi * step / steps))
    for _ in range(steps):
        optimizer.zero_grad()
        loss(draw).backward()
        optimizer.step()
        schedule.step()
    return htsr.analyze(model, progress=False)


def gpt(seed: int, steps: int) -> htsr.Analysis:
    """Train the demo's GPT on the standard library."""
    text = tokens(standard_library()[0])
    torch.manual_seed(seed)
    model = GPT(CONTEXT)

    def loss(draw: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(text) - CONTEXT, (BATCH, 1), generator=draw)
        return model.loss(text[starts + torch.arange(CONTEXT + 1)])

    return train(model, loss, seed, steps)


def cnn(seed: int, steps: int) -> htsr.Analysis:
    """Train the convolutional net on the digits."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16).float().flatten(1), torch.tensor(digits.target)
    torch.manual_seed(seed)
    model = CNN()

    def loss(draw: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(images), (64,), generator=draw)
        return cross_entropy(model(images[chosen]), labels[chosen])

    return train(model, loss, seed, steps)


def pocketnet() -> list[Path]:
    """Return the files of the five trainings in the package; none if it is not installed."""
    found = importlib.util.find_spec("pocketnet")
    if found is None or found.origin is None:
        return []
    return sorted((Path(found.origin).parent / "weights").glob("v3_fold*.pt"))


def long_table(trainings: Sequence[htsr.Analysis]) -> pd.DataFrame:
    """Return the rows of all trainings, layers with a fit in every one of them, with the number of the training."""
    rows = pd.concat(
        [analysis.details.assign(training=number) for number, analysis in enumerate(trainings)], ignore_index=True
    )
    rows = rows[(rows["tied_to"] == "") & (rows["M"] >= MIN_SIDE)].assign(**{LOG: np.log(rows["alpha"] - 1)})
    whole = rows.groupby("name")["alpha"].agg(lambda alpha: alpha.notna().sum() == len(trainings))
    return rows[rows["name"].isin(whole.index[whole])]


def icc(values: np.ndarray) -> float:
    """Return ICC(1), the share of the variance that lies between layers; ``values`` has layers down, trainings across."""
    layers, trainings = values.shape
    if layers < 2:
        return math.nan
    between = trainings * values.mean(axis=1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    total = between + (trainings - 1) * within
    return float((between - within) / total) if total > 0 else math.nan


def repeatability(rows: pd.DataFrame, column: str) -> list[object]:
    """Return the spread of a column: of one layer, of the model's median, ICC over all layers and within shapes."""
    values = rows.pivot(index="name", columns="training", values=column).astype("float64").dropna()
    shapes = rows.drop_duplicates("name").set_index("name")[["N", "M", "rf"]].apply(tuple, axis=1)
    of_shapes = [group.to_numpy() for _, group in values.groupby(shapes.reindex(values.index)) if len(group) >= 3]
    within = [icc(group) for group in of_shapes]
    return [
        column,
        float(np.sqrt(values.var(axis=1, ddof=1).mean())),
        float(values.median().std(ddof=1)),
        icc(values.to_numpy()),
        ", ".join(f"{value:.2f}" for value in within),
    ]


def phases(rows: pd.DataFrame) -> tuple[float, float]:
    """Return in what share of layers all trainings have one phase, and in what share of pairs of trainings two have."""
    table_of_phases = rows.pivot(index="name", columns="training", values="phase")
    pairs = list(itertools.combinations(table_of_phases.columns, 2))
    same = [float((table_of_phases[a] == table_of_phases[b]).mean()) for a, b in pairs]
    return float((table_of_phases.nunique(axis=1) == 1).mean()), float(np.mean(same))


def section(title: str, trainings: Sequence[htsr.Analysis]) -> list[str]:
    """Return the lines about one network."""
    rows = long_table(trainings)
    medians = rows.groupby("training")["alpha"].median()
    all_same, pair_same = phases(rows)
    return [
        f"## {title}",
        "",
        f"{len(trainings)} trainings, {rows['name'].nunique()} matrices with a smaller side of at least {MIN_SIDE} and a fit in "
        f"each. Median alpha: {', '.join(f'{value:.2f}' for value in medians)}. The phase is the same in all trainings for "
        f"{all_same:.0%} of the layers, and in two of them for {pair_same:.0%}.",
        "",
        *table(
            ["column", "sd, one layer", "sd, median of the model", "ICC", "ICC within each shape of 3 layers or more"],
            [repeatability(rows, column) for column in COLUMNS],
        ),
        "",
    ]


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, few steps, prints only")
    quick = parser.parse_args().quick
    seeds = 2 if quick else SEEDS
    lines = [
        "# What training again does to the numbers",
        "",
        "`sd, one layer` is the root mean variance of a layer's number over trainings; `sd, median of the model` is that of the "
        "median over layers; the ICC is the share of the variance that lies between layers and not between trainings. Two "
        "models whose medians differ by less than 2.8 times the second number (2 sd of a difference) are not told apart.",
        "",
    ]
    if shipped := pocketnet():
        audits = [htsr.analyze(file, progress=False) for file in shipped]
        lines += section("pocketnet 0.3.0: five folds of the data", audits)
    lines += section("The demo's GPT", [gpt(seed, 20 if quick else STEPS_OF_GPT) for seed in range(seeds)])
    lines += section(
        "A convolutional net on digits", [cnn(seed, 20 if quick else STEPS_OF_CNN) for seed in range(seeds)]
    )
    lines.append(f"`python benchmarks/repeatability.py`; {provenance()}")
    if quick:
        print("\n".join(lines))
    else:
        (RESULTS / "repeatability.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
