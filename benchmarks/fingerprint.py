"""Can one tell from a network's weights whether Adam or Muon trained it? Small networks, held-out seeds and architectures.

Each seed draws a width, an initialisation, a number of steps, learning rates and weight decays, and trains a network by two
Adam-like and two Muon-like optimizers. A logistic regression on a few measures of each hidden matrix learns from some of the
networks and judges others: other seeds, architectures that it has not seen, networks that neither optimizer trained, and a
Transformer that AdamW trained elsewhere.

    pip install scikit-learn 'htsr[demo]'
    python benchmarks/fingerprint.py           # writes benchmarks/results/fingerprint.md, twelve minutes
    python benchmarks/fingerprint.py --quick   # two seeds, twenty steps, prints only
"""

import argparse
import itertools
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from provenance import table, write
from scipy.stats import kurtosis
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer
from tqdm.auto import tqdm

import htsr
from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.demo.run import trained_transformer
from htsr.optim import HTMuon, parameter_groups
from htsr.optim.parameter_groups import EMBEDDING_WORDS, HEAD_NAMES
from htsr.weights import open_source
from htsr.weights.source import Source

# Seeds to learn from, seeds to judge, and seeds of the architecture that nothing is learned from.
LEARNED, JUDGED, UNSEEN = range(8), range(8, 12), range(8, 16)
# So many of the seeds also train from an orthogonal initialisation, by SGD, and not at all.
OTHERS = 3
WIDTHS, STEPS, BATCH = (24, 36, 48, 60), (100, 200, 300), 32
ADAM, MUON, OTHER = "Adam-like", "Muon-like", "neither"
# The smallest side of a matrix that counts.
SMALLEST = 16
# Probabilities beyond which a verdict would be given.
LOW, HIGH = 0.1, 0.9

Loss = Callable[[nn.Module], Tensor]


class Convolutions(nn.Module):
    """Four convolutions and an output layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sides = (1, width, width, 2 * width, width)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sides))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = x.unflatten(1, (1, 8, 8))
        for number, layer in enumerate(self.layers):
            x = layer(x).relu()
            if number < 2:
                x = nn.functional.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


class VisionTransformer(nn.Module):
    """Two blocks of torch's encoder on 16 patches, and an output layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(4, width)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        patches = nn.functional.unfold(x.unflatten(1, (1, 8, 8)), 2, stride=2).mT
        return self.head(self.blocks(self.patch_embedding(patches) + self.position).mean(1))


class Mixer(nn.Module):
    """Two blocks of a perceptron over 16 patches and one over channels, and an output layer (Tolstikhin et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(4, width)
        sides = [(16, 32), (width, 2 * width)] * 2
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Linear(b, a)) for a, b in sides)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in sides)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.patch_embedding(nn.functional.unfold(x.unflatten(1, (1, 8, 8)), 2, stride=2).mT)
        for number, (norm, block) in enumerate(zip(self.norms, self.blocks, strict=True)):
            x = x + (block(norm(x)) if number % 2 else block(norm(x).mT).mT)
        return self.head(x.mean(1))


def perceptron(width: int) -> nn.Sequential:
    """Return a perceptron with matrices of four shapes and an output layer."""
    sides = (64, width, 2 * width, width, width)
    hidden = [part for a, b in itertools.pairwise(sides) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "perceptron": perceptron,
    "convolutions": Convolutions,
    "vision transformer": VisionTransformer,
    "GPT": lambda width: GPT(context=32, width=width, depth=2),
    "mixer": Mixer,
}
SEEN = tuple(MODELS)[:-1]


def losses(architecture: str, seed: int) -> Loss:
    """Return a function that gives the loss of a model on the next batch."""
    draw = torch.Generator().manual_seed(seed)
    if architecture == "GPT":
        text = tokens(standard_library()[0][:400_000])

        def of_text(model: nn.Module) -> Tensor:
            starts = torch.randint(0, len(text) - 33, (8, 1), generator=draw)
            return model.loss(text[starts + torch.arange(33)])

        return of_text
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1
    classes = torch.tensor(digits.target).long()

    def of_digits(model: nn.Module) -> Tensor:
        rows = torch.randint(0, len(images), (BATCH,), generator=draw)
        return cross_entropy(model(images[rows]), classes[rows])

    return of_digits


class Recipe(NamedTuple):
    """An optimizer with its settings."""

    kind: str
    name: str
    lr: float
    weight_decay: float

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Return the optimizers of a model."""
        lr, decay = self.lr, self.weight_decay
        if self.name in ("Adam", "AdamW", "SGD"):
            own = {"momentum": 0.9} if self.name == "SGD" else {}
            return [
                {"Adam": Adam, "AdamW": AdamW, "SGD": SGD}[self.name](model.parameters(), lr, weight_decay=decay, **own)
            ]
        groups = parameter_groups(model)
        for group in groups:
            if group["algorithm"] == "adamw":
                group.update(lr=2e-3, weight_decay=0.0)
        if self.name.startswith("HTMuon"):
            return [HTMuon(groups, lr=lr, weight_decay=decay, power=float(self.name.split()[-1]))]
        matrices = [pair for group in groups if group["algorithm"] == "htmuon" for pair in group["params"]]
        rest = [pair for group in groups if group["algorithm"] == "adamw" for pair in group["params"]]
        adjust = "match_rms_adamw" if "rms" in self.name else "original"
        return [Muon(matrices, lr, decay, adjust_lr_fn=adjust), AdamW(rest, 2e-3)]


def recipes(architecture: str, draw: random.Random) -> list[Recipe]:
    """Return two Adam-like and two Muon-like recipes, with settings by chance.

    Weight decay is drawn as its product with the learning rate, at most one in a hundred a step, so that in some networks
    nothing is left of the initialisation.
    """

    def drawn(kind: str, name: str, low: float, high: float) -> Recipe:
        lr = low * (high / low) ** draw.random()
        decay = draw.choice((0.0, 1e-4, 1e-3, 1e-2)) / lr
        return Recipe(kind, name, lr, 0.0 if name == "Adam" else decay)

    # torch.optim.Muon refuses kernels; HTMuon with power 0 is Muon for them.
    muons = ["HTMuon 0", "HTMuon 0"] if architecture == "convolutions" else ["Muon", "Muon, rms"]
    muons = [draw.choice(muons), draw.choice(("HTMuon 0.125", "HTMuon 0.25"))]
    result = [drawn(ADAM, name, 1e-3, 1e-2) for name in ("Adam", "AdamW")]
    return result + [drawn(MUON, name, *((2e-3, 2e-2) if "rms" in name else (5e-3, 5e-2))) for name in muons]


def make(architecture: str, width: int, initialisation: str, seed: int) -> nn.Module:
    """Return a network with torch's initialisation, a Gaussian one of the same size, or an orthogonal one."""
    torch.manual_seed(seed)
    model = MODELS[architecture](width)
    for p in model.parameters():
        if p.ndim >= 2 and initialisation != "default":
            std = p.detach().std().item()
            if initialisation == "Gaussian":
                nn.init.normal_(p, std=std)
            else:
                nn.init.orthogonal_(p)
                p.data *= std / p.detach().std().item()
    return model


def train(recipe: Recipe, model: nn.Module, loss: Loss, steps: int) -> tuple[float, float]:
    """Train a model, and return its loss in the beginning and at the end, a mean of ten batches each."""
    optimizers, seen = recipe.optimizers(model), []
    for _ in range(steps):
        value = loss(model)
        model.zero_grad()
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
        seen.append(value.item())
    return float(np.mean(seen[:10])), float(np.mean(seen[-10:]))


def networks(
    folder: Path, seeds: Iterable[int], architectures: Iterable[str], most: int = max(STEPS)
) -> Iterator[dict[str, Any]]:
    """Train the networks of the seeds, at most so many steps, and yield their weights and what is known of them.

    A network that the folder has is not trained again.
    """
    for seed, architecture in tqdm(list(itertools.product(seeds, architectures)), disable=None):
        draw = random.Random(1000 * seed + list(MODELS).index(architecture))
        width, start = draw.choice(WIDTHS), draw.choice(("default", "Gaussian"))
        steps = min(most, draw.choice(STEPS))
        chosen = [(start, recipe) for recipe in recipes(architecture, draw)]
        if seed < OTHERS:
            chosen += [("orthogonal", recipe) for recipe in recipes(architecture, draw)[1:3]]
            chosen += [(start, Recipe(OTHER, "SGD", 0.05, 0.0)), (start, Recipe(OTHER, "untrained", 0.0, 0.0))]
        for number, (initialisation, recipe) in enumerate(chosen):
            path = folder / f"{architecture}-{seed}-{number}-{steps}.pt"
            if not path.exists():
                model = make(architecture, width, initialisation, seed)
                if recipe.name != "untrained":
                    train(recipe, model, losses(architecture, seed), steps)
                about = {
                    "seed": seed,
                    "architecture": architecture,
                    "initialisation": initialisation,
                    **recipe._asdict(),
                }
                torch.save({"model": model.state_dict(), "about": about}, path)
            yield torch.load(path)


def hidden(source: Source) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the names and values of the matrices that Muon would move: no embedding, no head, none with a short side."""
    for layer in open_source(source, conv="unfold").layers:
        name = layer.name.lower()
        outer = any(word in name for word in EMBEDDING_WORDS) or HEAD_NAMES & set(name.split("."))
        if min(layer.shape[0], np.prod(layer.shape[1:])) >= SMALLEST and not outer and layer.layer_type != "embedding":
            yield layer.name, layer.load().double().flatten(1).numpy()


def measures(W: np.ndarray) -> dict[str, float]:
    """Return what is measured of a matrix, most of it beside shuffled copies, so that scale and shape matter little."""
    draw = np.random.default_rng(0)
    copies = [draw.permutation(W.ravel()).reshape(W.shape) for _ in range(3)]
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    spectra = np.array([np.linalg.svd(copy, compute_uv=False) for copy in copies])
    s0 = np.exp(np.log(spectra).mean(0))

    def quantile(part: float) -> float:
        """Return by how much a quantile of the singular values is larger than in the copies, in logarithms."""
        return float(np.log(np.quantile(s, part) + 1e-9 * s[0]) - np.log(np.quantile(s0, part)))

    def spread(axis: int) -> float:
        return float(np.log(_spread(W, axis) / np.mean([_spread(copy, axis) for copy in copies])))

    top, few = float(np.log(s[0] / s0[0])), max(1, len(s) // 10)
    return {
        "stable rank": -2 * top,
        "effective rank": _entropy(s) - _entropy(s0),
        "largest over 90 % quantile": top - quantile(0.9),
        "upper quartile": quantile(0.75),
        "upper over lower quartile": quantile(0.75) - quantile(0.25),
        "alpha": _alpha(s) - _alpha(spectra[0]),
        "largest entry over spectral norm": float(np.log(np.abs(W).max() * np.sqrt(max(W.shape)) / s[0])),
        "kurtosis of entries": float(np.arcsinh(kurtosis(W.ravel()))),
        "spread of row norms": spread(1),
        "spread of column norms": spread(0),
        "localisation of left vectors": _localisation(U[:, :few].T),
        "localisation of right vectors": _localisation(Vt[:few]),
    }


def _entropy(s: np.ndarray) -> float:
    shares = s[s > 0] / s.sum()
    return float(-np.sum(shares * np.log(shares)))


def _alpha(s: np.ndarray) -> float:
    return htsr.fit_power_law(np.sort(s**2)).alpha


def _spread(W: np.ndarray, axis: int) -> float:
    """Return the standard deviation of the logarithms of the norms of rows (1) or columns (0)."""
    return float(np.log(np.linalg.norm(W, axis=axis) + 1e-12).std())


def _localisation(vectors: np.ndarray) -> float:
    """Return the mean logarithm of n sum v^4, which is ln 3 for Gaussian vectors and 0 for vectors of equal entries."""
    return float(np.log(vectors.shape[1] * (vectors**4).sum(1)).mean())


MEASURES = tuple(measures(np.random.default_rng(0).standard_normal((20, 20))))

SETS = {
    "all twelve": MEASURES,
    "without the entries, six": MEASURES[:6],
    "largest over 90 % quantile": (MEASURES[2],),
    "stable rank": (MEASURES[0],),
}


def measured(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return a row for each hidden matrix of networks."""
    return pd.DataFrame(
        [
            {"network": number, **network["about"], "layer": name, **measures(W)}
            for number, network in enumerate(found)
            for name, W in hidden(network["model"])
        ]
    )


class Model:
    """A logistic regression on matrices; networks weigh alike, and the mean over a network's matrices is its logit."""

    def __init__(self, rows: pd.DataFrame, chosen: tuple[str, ...] = MEASURES) -> None:
        self.chosen = list(chosen)
        self.scaler = StandardScaler().fit(rows[self.chosen])
        weights = 1 / rows.groupby("network")["network"].transform("size")
        self.regression = LogisticRegression(C=1.0, max_iter=2000)
        self.regression.fit(self.scaler.transform(rows[self.chosen]), rows["kind"] == MUON, weights)

    def logits(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the logit of Muon for each matrix."""
        return self.regression.decision_function(self.scaler.transform(rows[self.chosen]))

    def judged(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the networks of the matrices with ``probability``, that of Muon."""
        logits = pd.Series(self.logits(rows), index=rows.index).groupby(rows["network"]).mean()
        return rows.groupby("network").first().assign(probability=1 / (1 + np.exp(-logits)))


def score(judged: pd.DataFrame) -> list[object]:
    """Return how many networks there are, and how many of them, and of the decided ones, are judged rightly."""
    muon, p = judged["kind"] == MUON, judged["probability"]
    decided = (p < LOW) | (p > HIGH)
    wrong = ((p > 0.5) != muon) & decided
    return [
        len(judged), f"{100 * ((p > 0.5) == muon).mean():.0f} %", roc_auc_score(muon, p), float(((p - muon) ** 2).mean()),
        int(decided.sum()), int(wrong.sum()),
    ]  # fmt: skip


def together(learned: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of both, each network with a number of its own."""
    return pd.concat([learned, judged.assign(network=judged["network"] + 1 + learned["network"].max())])


def accuracy(learned: pd.DataFrame, judged: pd.DataFrame, unseen: pd.DataFrame) -> list[str]:
    """Return how well other seeds and other architectures are judged, by all measures, by six, and by one."""
    lines: list[list[object]] = []
    both = together(learned, judged)
    for name, chosen in SETS.items():
        lines.append([name, "other seeds", *score(Model(learned, chosen).judged(judged))])
        for architecture in SEEN:
            own = both["architecture"] == architecture
            lines.append([name, f"unseen: {architecture}", *score(Model(both[~own], chosen).judged(both[own]))])
        lines.append([name, "unseen: mixer", *score(Model(both, chosen).judged(unseen))])
    header = ["measures", "networks judged", "networks", "right", "area under ROC", "Brier score", "decided"]
    return [
        "## Other seeds, and architectures that the model has not seen\n\nDecided: a probability of Muon below "
        f"{LOW} or above {HIGH}.\n",
        *table([*header, "decided wrongly"], lines),
    ]


def calibration(learned: pd.DataFrame, judged: pd.DataFrame, unseen: pd.DataFrame) -> list[str]:
    """Return how often Muon trained the networks that have a probability."""
    edges = [0, LOW, 0.3, 0.7, HIGH, 1]
    both, lines = together(learned, judged), []
    kinds = {"other seeds": Model(learned).judged(judged), "unseen: mixer": Model(both).judged(unseen)}
    apart = [both["architecture"] == architecture for architecture in SEEN]
    kinds["unseen: each of the others in turn"] = pd.concat([Model(both[~own]).judged(both[own]) for own in apart])
    for name, networks_ in kinds.items():
        bins = pd.cut(networks_["probability"], edges, include_lowest=True)
        cells = [
            f"{(part['kind'] == MUON).sum()} of {len(part)}" for _, part in networks_.groupby(bins, observed=False)
        ]
        lines.append([name, *cells])
    header = [f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges)]
    return [
        "## Calibration\n\nHow many of the networks with a probability of Muon in these ranges Muon trained; all twelve "
        "measures.\n",
        *table(["networks judged", *header], lines),
    ]


def others(learned: pd.DataFrame, strange: pd.DataFrame) -> list[str]:
    """Return the probabilities of networks that the model is not for."""
    model = Model(learned)
    judged = model.judged(strange)
    judged["what"] = np.where(judged["kind"] == OTHER, judged["name"], judged["initialisation"] + ", " + judged["kind"])
    lines: list[list[object]] = []
    for what, own in judged.groupby("what"):
        p = own["probability"]
        lines.append([what, len(own), p.min(), p.median(), p.max(), int(((p < LOW) | (p > HIGH)).sum())])
    minilm = pd.DataFrame([{"network": 0, **measures(W)} for _, W in hidden(trained_transformer())])
    transferred: list[list[object]] = []
    for name, chosen in SETS.items():
        model = Model(learned, chosen)
        like = f"{(model.logits(minilm) > 0).sum()} of {len(minilm)}"
        transferred.append([name, float(model.judged(minilm)["probability"].iloc[0]), like])
    return [
        "## Networks that the model is not for\n\nThe probability of Muon; all twelve measures.\n",
        *table(["networks", "number", "smallest", "median", "largest", "decided"], lines),
        "\n## A Transformer that AdamW trained\n\nMiniLM, 6 blocks of width 384.\n",
        *table(["measures", "probability of Muon", "matrices more like Muon's"], transferred),
    ]


def single(rows: pd.DataFrame) -> list[str]:
    """Return how well each measure alone separates the two kinds of optimizers within each architecture."""
    networks_ = rows.groupby("network")[list(MEASURES)].median()
    about = rows.groupby("network")[["architecture", "kind"]].first()
    lines: list[list[object]] = []
    for measure in MEASURES:
        cells = []
        for architecture in [*SEEN, None]:
            own = about["architecture"].eq(architecture) if architecture else about["kind"].notna()
            cells.append(f"{roc_auc_score(about['kind'][own] == MUON, networks_[measure][own]):.2f}")
        coefficient = Model(rows).regression.coef_[0][MEASURES.index(measure)]
        lines.append([measure, *cells, f"{coefficient:+.2f}"])
    return [
        "## Each measure alone\n\nThe area under the ROC curve of its median over the matrices of a network, within an "
        "architecture and over all: 1 where Muon's networks have the larger values, 0 where Adam's have. The last column is "
        "its coefficient, in units of its standard deviation.\n",
        *table(["measure", *SEEN, "all", "coefficient"], lines),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds to learn from, one to judge, twenty steps")
    parser.add_argument("--networks", type=Path, help="a folder that keeps the trained networks")
    options = parser.parse_args()
    seeds = (range(2), range(8, 9), range(8, 9)) if options.quick else (LEARNED, JUDGED, UNSEEN)
    most = 20 if options.quick else max(STEPS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.networks or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = measured(networks(folder, seeds[0], SEEN, most))
        judged = measured(networks(folder, seeds[1], SEEN, most))
        unseen = measured(networks(folder, seeds[2], ["mixer"], most))
    strange = (rows["kind"] == OTHER) | (rows["initialisation"] == "orthogonal")
    learned = rows[~strange]
    lines = [
        "# Adam or Muon? What the weights say\n",
        f"The model learned from {learned['network'].nunique()} networks, with {len(learned)} hidden matrices.\n",
        *accuracy(learned, judged, unseen),
        "",
        *calibration(learned, judged, unseen),
        "",
        *others(learned, rows[strange]),
        "",
        *single(learned),
    ]
    if options.quick:
        print("\n".join(lines))
    else:
        write("fingerprint.md", "\n".join(lines))


if __name__ == "__main__":
    main()
