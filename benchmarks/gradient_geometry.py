"""Does the decrease of the loss that gradient_geometry predicts rank HTMuon's powers as training does?

python benchmarks/gradient_geometry.py

From one state of a model, gradient_geometry measures what one step does at each power p, and HTMuon trains 50 steps at each p.
"alone" is the sum over the matrices that HTMuon updates, each moved alone; "together" moves all of them at once. The state is the
initial one, or the one after 50 steps at p = 0. Steps of equal Frobenius norm meet a training with scale="match_muon", steps of
equal spectral norm one with scale="spectral", both at lr = 0.02.
"""

import argparse
import copy
import platform
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
LR = 0.02
STEPS, SEEDS, BATCHES = 50, 5, 8
CONTEXT, BATCH, HELD_OUT = 64, 16, 16
SCALES = {"frobenius": "match_muon", "spectral": "spectral"}


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


def train(task: Task, model: nn.Module, power: float, scale: str, steps: int, seed: int) -> nn.Module:
    """Return a copy of a model after some steps; every power sees the same batches."""
    model = copy.deepcopy(model)
    optimizer = HTMuon(parameter_groups(model), lr=LR, power=power, scale=scale, weight_decay=0.0)
    torch.manual_seed(1000 + seed)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(model).backward()
        optimizer.step()
    return model


def compare(task: Task, start: str, powers: tuple[float, ...], steps: int, seeds: int, batches: int) -> None:
    """Print predictions and losses of a task from one start."""
    predicted: dict[tuple[str, str], list[np.ndarray]] = {
        (kind, how): [] for kind in SCALES for how in ("alone", "together")
    }
    measured: dict[str, list[list[float]]] = {kind: [] for kind in SCALES}
    matter = 0
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = task.make()
        if start == "trained":
            model = train(task, model, 0.0, "match_muon", steps, 500 + seed)
        geometry = htsr.gradient_geometry(model, task.loss, powers=powers, batches=batches, lr=LR, progress=False)
        own = [name for name, role in geometry.roles.items() if role.algorithm == "htmuon"]
        matter += "p matters here" in geometry.headline()
        names = geometry.details["name"][geometry.details["parameter"].isin(own)]
        sums = geometry.decreases[geometry.decreases["name"].isin(names)].groupby("power")[list(SCALES)].sum()
        for kind, scale in SCALES.items():
            predicted[kind, "alone"].append(sums[kind].to_numpy())
            predicted[kind, "together"].append(geometry.together[kind].to_numpy())
            measured[kind].append([task.held_out(train(task, model, p, scale, steps, seed)) for p in powers])
    print(f"p matters here, says `gradient_geometry` for {matter} of {seeds} seeds.\n")
    print("| equal norm | quantity |", *(f"p = {power:g} |" for power in powers), "rank correlation | same best p |")
    print("|---|---|" + "---|" * (len(powers) + 2))
    zero = powers.index(0.0)
    for kind in SCALES:
        y = np.array(measured[kind])
        for how in ("alone", "together"):
            x = np.array(predicted[kind, how])
            ranks = [spearmanr(a, -b).statistic for a, b in zip(x, y, strict=True)]
            same = sum(int(np.argmax(a) == np.argmin(b)) for a, b in zip(x, y, strict=True))
            print(f"| {kind} | decrease by a step, {how} |", *(f"{value:.3g} |" for value in x.mean(0)), end=" ")
            print(f"{np.mean(ranks):+.2f} ± {error_of(np.array(ranks)):.2f} | {same} of {seeds} |")
        print(f"| {kind} | loss after {steps} steps |", *(f"{value:.3f} |" for value in y.mean(0)), "| |")
        differences = y - y[:, [zero]]
        cells = [f"{a:+.3f} ± {b:.3f} |" for a, b in zip(differences.mean(0), error_of(differences), strict=True)]
        print(f"| {kind} | minus that at p = 0 |", *cells, "| |")
    print(flush=True)


def error_of(values: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over seeds, NaN for a single one."""
    return values.std(0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.full(values.shape[1:], np.nan)


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
