"""Does the decrease of the loss that gradient_geometry predicts rank HTMuon's powers as training does?

python benchmarks/gradient_geometry.py

From one state of a model, gradient_geometry predicts what one step does at each power p, and HTMuon trains 50 steps at each p.
The prediction of a power is the sum over the matrices that HTMuon updates. The state is the initial one, or the one after 50
steps at p = 0. Each prediction meets the training whose step it speaks of: "frobenius" the one with scale="match_muon",
"spectral" the one with scale="spectral", both at lr = 0.02; "best" the one with scale="match_muon" at the best of three rates.
"""

import argparse
import copy
import platform
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from momenta import DigitsNet
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import htsr
from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.optim import HTMuon, parameter_groups

POWERS = (-0.25, -0.125, 0.0, 0.125, 0.25, 0.5)
LR, RATES = 0.02, (0.005, 0.02, 0.08)
STEPS, SEEDS, BATCHES = 50, 5, 6
CONTEXT, BATCH, HELD_OUT = 64, 16, 16
# A prediction, the scale of the training that it speaks of, and the learning rates of which the best one counts.
PREDICTIONS = {"frobenius": ("match_muon", (LR,)), "spectral": ("spectral", (LR,)), "best": ("match_muon", RATES)}


class Task(NamedTuple):
    """A model, the loss of a batch that torch's global random numbers choose, and the loss on data held out from training."""

    make: Callable[[], nn.Module]
    loss: Callable[[nn.Module], Tensor]
    held_out: Callable[[nn.Module], float]


def gpt_task() -> Task:
    train, held_out = map(tokens, standard_library())

    def draw(text: Tensor, count: int) -> Tensor:
        return text[torch.randint(len(text) - CONTEXT, (count, 1)) + torch.arange(CONTEXT + 1)]

    torch.manual_seed(99)
    fixed = draw(held_out, BATCH * HELD_OUT)
    return Task(
        lambda: GPT(CONTEXT, width=64, depth=2, heads=4),
        lambda model: model.loss(draw(train, BATCH)),
        torch.no_grad()(lambda model: float(model.loss(fixed))),
    )


def digits_task() -> Task:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(99))
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    classes = torch.tensor(digits.target)[order]
    held_out = slice(0, 500)

    def loss(model: nn.Module) -> Tensor:
        chosen = torch.randint(500, len(images), (64,))
        return cross_entropy(model(images[chosen]), classes[chosen])

    return Task(
        DigitsNet, loss, torch.no_grad()(lambda model: float(cross_entropy(model(images[held_out]), classes[held_out])))
    )


def train(task: Task, model: nn.Module, power: float, scale: str, lr: float, steps: int, seed: int) -> nn.Module:
    """Return a copy of a model after some steps; every power sees the same batches."""
    model = copy.deepcopy(model)
    optimizer = HTMuon(parameter_groups(model), lr=lr, power=power, scale=scale, weight_decay=0.0)
    torch.manual_seed(1000 + seed)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(model).backward()
        optimizer.step()
    return model


def compare(task: Task, start: str, powers: tuple[float, ...], steps: int, seeds: int, batches: int) -> None:
    """Print predictions and losses of a task from one start."""
    predicted: dict[str, list[list[float]]] = {name: [] for name in PREDICTIONS}
    measured: dict[str, list[list[float]]] = {name: [] for name in PREDICTIONS}
    matters = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = task.make()
        if start == "trained":
            model = train(task, model, 0.0, "match_muon", LR, steps, 500 + seed)
        geometry = htsr.gradient_geometry(model, task.loss, powers=powers, batches=batches, lr=LR, progress=False)
        own = [name for name, role in geometry.roles.items() if role.algorithm == "htmuon"]
        of_matrices = geometry.details[geometry.details["parameter"].isin(own)]
        matters.append(of_matrices["matters"].mean())
        table = geometry.decreases[geometry.decreases["name"].isin(of_matrices["name"])]
        sums = table.groupby("power")[["frobenius", "spectral", "slope", "curvature"]].sum()
        sums["best"] = sums["slope"] ** 2 / (2 * sums["curvature"].where(sums["curvature"] > 0))
        losses: dict[tuple[str, float, float], float] = {}
        for name, (scale, rates) in PREDICTIONS.items():
            for power in powers:
                for rate in rates:
                    key = (scale, rate, power)
                    if key not in losses:
                        losses[key] = task.held_out(train(task, model, power, scale, rate, steps, seed))
            predicted[name].append([float(sums.loc[power, name]) for power in powers])
            measured[name].append([min(losses[scale, rate, power] for rate in rates) for power in powers])
    print(f"p matters to {100 * statistics.mean(matters):.0f} % of the matrices (mean over {seeds} seeds)\n")
    print("| prediction | quantity |", *(f"p = {power:g} |" for power in powers), "rank correlation | same best p |")
    print("|---|---|" + "---|" * (len(powers) + 2))
    for name in PREDICTIONS:
        x, y = np.array(predicted[name]), np.array(measured[name])
        ranks = [spearmanr(a, -b, nan_policy="omit").statistic for a, b in zip(x, y, strict=True)]
        same = sum(int(np.nanargmax(a) == np.argmin(b)) for a, b in zip(x, y, strict=True))
        error = np.std(ranks, ddof=1) / seeds**0.5 if seeds > 1 else float("nan")
        print(f"| {name} | predicted decrease |", *(f"{value:.3g} |" for value in np.nanmean(x, 0)), end=" ")
        print(f"{np.mean(ranks):+.2f} ± {error:.2f} | {same} of {seeds} |")
        print(f"| | loss after {steps} steps |", *(f"{value:.3f} |" for value in y.mean(0)), "| |")
        if seeds > 1:
            zero = powers.index(0.0)
            errors = (y - y[:, [zero]]).std(0, ddof=1) / seeds**0.5
            differences = [f"{a:+.3f} ± {b:.3f} |" for a, b in zip((y - y[:, [zero]]).mean(0), errors, strict=True)]
            print("| | minus that of p = 0 |", *differences, "| |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, three powers and three steps")
    options = parser.parse_args()
    powers, steps, seeds, batches = ((-0.25, 0.0, 0.5), 3, 1, 2) if options.quick else (POWERS, STEPS, SEEDS, BATCHES)
    print("# Predicted decrease and training\n")
    for name, task in (("GPT", gpt_task()), ("digits", digits_task())):
        for start in ("initial", "trained"):
            print(f"## {name}, {start} state\n")
            compare(task, start, powers, steps, seeds, batches)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, htsr {htsr.__version__}")


if __name__ == "__main__":
    main()
