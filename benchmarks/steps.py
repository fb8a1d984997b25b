"""What audit_steps says of optimizers' steps: three rules at three widths and shapes, epsilon, clips, faults, healthy runs, cost.

The network is a perceptron on Fashion-MNIST, or on scikit-learn's digits where that is not installed: an input layer, one matrix
up (4:1), one down (1:4), one square, and an output layer. Muon moves the three in the middle, AdamW the rest.

    apt-get install dataset-fashion-mnist
    python benchmarks/steps.py           # writes benchmarks/results/steps.md, ten minutes
    python benchmarks/steps.py --quick   # one width, two seeds, prints only
"""

import argparse
import gzip
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from provenance import table, write
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer
from tqdm.auto import tqdm

import htsr
from htsr.dynamics.step_copies import isolated
from htsr.optim import HTMuon, parameter_groups

WIDTHS, STEPS, FIRST, BATCH, LR = (64, 256, 768), 20, 6, 128, 0.02
SHAPES = {"up": "1", "down": "2", "square": "3"}
# Of the norm of Muon's update, divided by the factor of its rule: the largest value of its Newton-Schulz polynomial.
GAIN = 1.2025
SCALES = (1.0, 1e-2, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
POWERS = (-0.25, -0.125, 0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
SEEDS, HEALTHY_STEPS = 20, 10

Closure = Callable[[nn.Module], Tensor]


class Perceptron(nn.Module):
    """An input layer, a matrix up, one down, a square one, and an output layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        sides = (inputs, width, 4 * width, width, width, 10)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sides))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Data(NamedTuple):
    """Images as vectors, their classes, and where they come from."""

    name: str
    images: Tensor
    classes: Tensor

    def closure(self, seed: int, scale: float = 1.0) -> Closure:
        """Return a function that gives the loss of a model on the next batch, times ``scale``."""
        draw = torch.Generator().manual_seed(seed)

        def loss(model: nn.Module) -> Tensor:
            rows = torch.randint(0, len(self.images), (BATCH,), generator=draw)
            return scale * cross_entropy(model(self.images[rows]), self.classes[rows])

        return loss


def load(folder: Path) -> Data:
    """Return Fashion-MNIST from a folder, or digits if it is not there."""
    if not folder.exists():
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.tensor(digits.data, dtype=torch.float32) / 16
        return Data("scikit-learn's digits", images, torch.tensor(digits.target).long())
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        classes = np.frombuffer(file.read(), np.uint8, offset=8)
    images = torch.tensor(pixels, dtype=torch.float32) / 255
    return Data("Fashion-MNIST", (images - images.mean()) / images.std(), torch.tensor(classes).long())


def make(data: Data, width: int, seed: int = 0) -> Perceptron:
    """Return the network."""
    torch.manual_seed(seed)
    return Perceptron(data.images.shape[1], width)


def inner(model: Perceptron) -> list[nn.Parameter]:
    """Return the matrices that Muon moves."""
    return [layer.weight for layer in model.layers[1:4]]


def outer(model: Perceptron) -> list[nn.Parameter]:
    """Return the other parameters."""
    own = {id(p) for p in inner(model)}
    return [p for p in model.parameters() if id(p) not in own]


def muon(model: Perceptron, kind: type[Muon] = Muon, adjust: str | None = None, **settings: float) -> list[Optimizer]:
    """Return Muon for the inner matrices and AdamW for the rest."""
    own = {"lr": LR, **settings}
    return [kind(inner(model), adjust_lr_fn=adjust, **own), AdamW(outer(model), lr=1e-3)]


def by_shape(model: Perceptron) -> list[Optimizer]:
    """Return a Muon whose learning rates follow sqrt(out / in), a group for each matrix."""
    groups = []
    for p in inner(model):
        out, into = p.shape
        groups.append({"params": [p], "lr": LR * math.sqrt(out / into) / math.sqrt(max(1, out / into))})
    return [Muon(groups, lr=LR), AdamW(outer(model), lr=1e-3)]


RULES: dict[str, tuple[Callable[[Perceptron], list[Optimizer]], Callable[[int, int], float]]] = {
    "original": (lambda model: muon(model), lambda out, into: math.sqrt(max(1, out / into))),
    "match_rms_adamw": (
        lambda model: muon(model, adjust="match_rms_adamw"),
        lambda out, into: 0.2 * math.sqrt(max(out, into)),
    ),
    "sqrt(out / in)": (by_shape, lambda out, into: math.sqrt(out / into)),
}


def audit(model: nn.Module, optimizers: list[Optimizer], closure: Closure, steps: int) -> pd.DataFrame:
    """Return the rows of the audit."""
    return htsr.audit_steps(model, optimizers, closure, steps=steps).details


def inner_rows(rows: pd.DataFrame, shape: str) -> pd.DataFrame:
    """Return the rows of one of the inner matrices."""
    return rows[rows["name"] == f"layers.{SHAPES[shape]}"]


def rules(data: Data, widths: tuple[int, ...], steps: int) -> list[str]:
    """Return the operator norm of updates by rule, width and shape, beside what the rule says."""
    lines: list[list[object]] = []
    furthest = 0.0
    for name, (optimizers, factor) in RULES.items():
        for width in tqdm(widths, desc=name, disable=None):
            model = make(data, width)
            rows = audit(model, optimizers(model), data.closure(0), steps)
            rows = rows[rows["step"] >= min(FIRST, steps)]
            cells = []
            for shape in SHAPES:
                own = inner_rows(rows, shape)
                out, into = int(own["n_out"].iloc[0]), int(own["n_in"].iloc[0])
                seen = float((own["step_per_lr"] * own["lr"] / LR).mean())
                told = GAIN * factor(out, into) * math.sqrt(into / out)
                furthest = max(furthest, abs(seen / told - 1))
                cells += [f"{seen:.2f}", f"{told:.2f}"]
            kept = rows[rows["optimizer"] == "Muon"]["step_vs_promise"]
            lines.append([name, width, *cells, f"{kept.min():.3f} to {kept.max():.3f}"])
    header = ["rule", "width", *(text for shape in SHAPES for text in (shape, f"{shape}, rule x 1.2025"))]
    return [
        f"## Three rules of torch.optim.Muon\n\nOperator norm of the update between root mean squares, / {LR}; mean of steps "
        f"{min(FIRST, steps)} to {steps}. No mean is further from the rule than {100 * furthest:.1f} %.\n",
        *table([*header, "step_vs_promise"], lines),
    ]


def adam(data: Data, widths: tuple[int, ...], steps: int) -> list[str]:
    """Return the operator norm of Adam's updates by width."""
    lines: list[list[object]] = []
    for width in widths:
        model = make(data, width)
        rows = audit(model, [Adam(model.parameters(), lr=1e-3)], data.closure(0), steps)
        rows = rows[rows["step"] >= min(FIRST, steps)]
        seen = [f"{inner_rows(rows, shape)['update_operator_norm'].mean():.3f}" for shape in SHAPES]
        lines.append([width, *seen, f"{rows['step_vs_promise'].min():.4f} to {rows['step_vs_promise'].max():.4f}"])
    return [
        "## Adam, 1e-3\n\nOperator norm of the update; it grows with the width.\n",
        *table(["width", *SHAPES, "step_vs_promise"], lines),
    ]


def epsilon(data: Data) -> list[str]:
    """Return what is left of Muon's step where the gradients are small."""
    lines: list[list[object]] = []
    for scale in SCALES:
        model = make(data, 64)
        rows = audit(model, muon(model), data.closure(0, scale), 8)
        rows = rows[(rows["step"] == 8) & (rows["optimizer"] == "Muon")]
        cells = [f"{inner_rows(rows, shape)['step_per_lr'].iloc[0]:.3f}" for shape in SHAPES]
        degrees = ", ".join(f"{degree:.2f}" for degree in rows["homogeneity"])
        lines.append([f"{scale:g}", *cells, degrees, ", ".join(dict.fromkeys(rows["verdict"]))])
    return [
        "## Epsilon of torch.optim.Muon\n\nWidth 64, original rule, gradients times s, step 8.\n",
        *table(["s", *SHAPES, "homogeneity", "verdict"], lines),
    ]


def powers(data: Data, chosen: tuple[float, ...]) -> list[str]:
    """Return how closely HTMuon keeps its promise."""
    lines: list[list[object]] = []
    for scale in ("match_muon", "spectral", "raw"):
        for power in chosen:
            model = make(data, 64)
            optimizer = HTMuon(parameter_groups(model), lr=LR, power=power, scale=scale)
            rows = audit(model, [optimizer], data.closure(0), 5)
            rows = rows[rows["rule"].str.startswith("HTMuon (")]
            degrees = rows["homogeneity"]
            lines.append(
                [scale, f"{power:g}", f"{rows['step_vs_promise'].min():.4f} to {rows['step_vs_promise'].max():.4f}",
                 f"{degrees.min():.3f} to {degrees.max():.3f}", ", ".join(dict.fromkeys(rows["verdict"]))]
            )  # fmt: skip
    return [
        "## HTMuon\n\nWidth 64, five steps.\n",
        *table(["scale", "p", "step_vs_promise", "homogeneity", "verdict"], lines),
    ]


class ClippedUpdate(Muon):
    """Muon whose update is divided by the clip factor of the gradients."""

    def step(self, closure: object = None) -> None:
        """Make the step, and take most of it back."""
        params = self.param_groups[0]["params"]
        before = [p.detach().clone() for p in params]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        super().step()
        with torch.no_grad():
            for p, old in zip(params, before, strict=True):
                p.copy_(old + (p - old) / (norm / 0.01).clamp(min=1))


def faults(data: Data) -> list[str]:
    """Return the verdicts on planted faults."""

    def clipped_gradients(model: nn.Module) -> float:
        loss = data.closure(0, 1e6)(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return loss.item()

    def without(model: Perceptron) -> list[Optimizer]:
        model.layers[2].weight.requires_grad_(False)
        return muon(model)

    def rebuilt(model: Perceptron) -> list[Optimizer]:
        optimizers = muon(model)
        model.layers[2] = nn.Linear(4 * 64, 64)
        return optimizers

    def twice(model: Perceptron) -> list[Optimizer]:
        return [SGD(inner(model), lr=0.1), SGD([inner(model)[0], *outer(model)], lr=0.1)]

    plain = data.closure(0)
    cases: dict[str, tuple[Callable[[Perceptron], list[Optimizer]], Callable]] = {
        "none": (muon, plain),
        "gradients of 1e6, clipped to norm 1 before the step": (muon, clipped_gradients),
        "update divided by the clip factor": (lambda model: muon(model, ClippedUpdate), plain),
        "gradients times 1e-8": (muon, data.closure(0, 1e-8)),
        "a frozen layer": (without, plain),
        "a hidden matrix in AdamW's group": (
            lambda model: [Muon(inner(model)[:2], lr=LR), AdamW([*outer(model), inner(model)[2]])],
            plain,
        ),
        "weight decay 100 times too large": (lambda model: muon(model, weight_decay=10.0), plain),
        "learning rate 0": (lambda model: muon(model, lr=0.0), plain),
        "a layer rebuilt after the optimizer was made": (rebuilt, plain),
        "a weight that two optimizers hold": (twice, plain),
    }
    lines: list[list[object]] = []
    for name, (optimizers, closure) in cases.items():
        model = make(data, 64)
        rows = audit(model, optimizers(model), closure, 3)
        last = rows[rows["step"] == 3].set_index("name")
        lines.append([name, *(last.loc[f"layers.{SHAPES[shape]}", "verdict"] for shape in SHAPES)])
    return [
        "## Planted faults\n\nWidth 64; the verdict on each inner matrix in the third step.\n",
        *table(["fault", *SHAPES], lines),
    ]


def healthy(data: Data, seeds: int) -> list[str]:
    """Return how often a healthy run raises a finding."""
    optimizers: dict[str, Callable[[Perceptron], list[Optimizer]]] = {
        "SGD, momentum .9": lambda model: [SGD(model.parameters(), lr=0.05, momentum=0.9)],
        "Adam": lambda model: [Adam(model.parameters(), lr=1e-3)],
        "AdamW": lambda model: [AdamW(model.parameters(), lr=1e-3)],
        "Muon and AdamW": muon,
        "Muon (match_rms_adamw) and AdamW": lambda model: muon(model, adjust="match_rms_adamw", lr=1e-3),
        "HTMuon": lambda model: [HTMuon(parameter_groups(model), lr=LR)],
        "HTMuon, raw": lambda model: [HTMuon(parameter_groups(model), lr=0.03, scale="raw")],
    }
    lines: list[list[object]] = []
    for name, build in optimizers.items():
        found, ratios = 0, []
        for seed in tqdm(range(seeds), desc=name, disable=None):
            model = make(data, 64, seed)
            result = htsr.audit_steps(model, build(model), data.closure(seed), steps=HEALTHY_STEPS)
            found += len(result.findings)
            ratios.append(result.details["step_vs_promise"])
        ratio = pd.concat(ratios).dropna()
        lines.append([name, seeds, found, f"{ratio.min():.3f} to {ratio.max():.3f}" if len(ratio) else "no promise"])
    return [
        f"## Healthy runs\n\nWidth 64, {HEALTHY_STEPS} steps from initialisation, all five matrices.\n",
        *table(["optimizer", "seeds", "findings", "step_vs_promise"], lines),
    ]


def cost(depth: int) -> list[str]:
    """Return what an audit costs beside the steps that it makes."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(block, depth, enable_nested_tensor=False), nn.Linear(512, 1024))
    inputs = torch.randn(4, 64, 512)
    count = sum(p.numel() for p in model.parameters())
    two = [p for p in model.parameters() if p.ndim == 2]
    one = [p for p in model.parameters() if p.ndim < 2]
    optimizers: dict[str, list[Optimizer]] = {
        "AdamW": [AdamW(model.parameters(), lr=1e-4)],
        "Muon and AdamW": [Muon(two, lr=1e-3), AdamW(one)],
        "HTMuon": [HTMuon(parameter_groups(model), lr=1e-3)],
    }

    def closure(model: nn.Module) -> Tensor:
        return model(inputs).square().mean()

    lines: list[list[object]] = []
    for name, chosen in optimizers.items():
        wall, start = time.perf_counter(), time.process_time()
        htsr.audit_steps(model, chosen, closure, steps=5)
        wall, audited = time.perf_counter() - wall, time.process_time() - start
        twin = isolated(model, chosen)
        start = time.process_time()
        for _ in range(5):
            twin[0].zero_grad()
            closure(twin[0]).backward()
            for optimizer in twin[1]:
                optimizer.step()
        lines.append([name, f"{wall:.0f} s", f"{audited:.0f} s", f"{time.process_time() - start:.0f} s"])
    return [
        f"## Cost\n\nA Transformer of {count / 1e6:.0f} million parameters, batch 4 x 64, five steps.\n",
        *table(["optimizer", "audit, wall", "audit, processor", "the five steps alone, processor"], lines),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one width, few steps and seeds; nothing is written")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="its folder")
    options = parser.parse_args()
    data = load(options.data)
    quick = options.quick
    widths, steps = ((64,), 6) if quick else (WIDTHS, STEPS)
    parts = [
        [f"# What optimizers' steps did\n\n{data.name}, batch {BATCH}."],
        rules(data, widths, steps),
        adam(data, widths, steps),
        epsilon(data),
        powers(data, (0.0, 0.125) if quick else POWERS),
        faults(data),
        healthy(data, 2 if quick else SEEDS),
        cost(1 if quick else 6),
    ]
    text = "\n\n".join("\n".join(lines) for lines in parts)
    if quick:
        print(text)
    else:
        write("steps.md", text)


if __name__ == "__main__":
    main()
