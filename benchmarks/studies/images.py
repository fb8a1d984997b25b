"""Does p pay on images? A convolutional network and a vision Transformer learn Fashion-MNIST at seven powers, with seeds.

    apt-get install dataset-fashion-mnist
    python benchmarks/studies/images.py --cells 'small*'   # an hour on two cores; goes on where it was stopped
    python benchmarks/studies/images.py                    # the larger ones, too: minutes on a card
    python benchmarks/studies/images.py --report           # tables and pictures of the runs that are there

The matrices and kernels of the inner layers get HTMuon's update with p, or what the arm names; AdamW trains the rest at 0.001 in
every arm. Each arm has a learning rate of its own, tuned on the validation error of other seeds. The figure is the error on the
test images, in percent.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fashion_mnist
import torch
from report import carry_out
from study import Cell, Study, arguments, machine, rates
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention
from training import BASELINE, POWERS, RAW, Optimizers, drawn, spectra, train

METRIC, TUNED_BY = "test_error", "validation_error"
CLASSES = 10
POWER_ARMS = {name: {"power": p} for name, p in POWERS.items()}
ADAMW = {"AdamW": {"optimizer": "adamw", "lrs": rates(0.002)}}
MUON = {"torch.optim.Muon": {"optimizer": "muon"}}  # it takes no kernels
LRS = rates(0.02)
CONV = {"network": "conv", "width": 32, "batch": 128, "steps": 500}
VIT = {"network": "vit", "width": 96, "depth": 4, "batch": 128, "steps": 500}
SMALL_CONV = {"network": "conv", "width": 16, "batch": 64, "steps": 200}  # for two cores
SMALL_VIT = {"network": "vit", "width": 48, "depth": 2, "batch": 64, "steps": 200}


def small(name: str, arms: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> Cell:
    """Return a set-up for two cores."""
    return Cell(f"small {name}", arms, rates(0.04, 3), BASELINE, settings, tuning=2, final=6)


CELLS = [
    Cell("conv net", {**POWER_ARMS, **ADAMW}, LRS, BASELINE, CONV),
    Cell("ViT", {**POWER_ARMS, **ADAMW, **MUON}, LRS, BASELINE, VIT),
    Cell("conv net, scale raw", RAW, LRS, BASELINE, CONV),
    Cell("ViT, 2000 steps", POWER_ARMS, LRS, BASELINE, {**VIT, "steps": 2000}),
    small("conv net", {**POWER_ARMS, **ADAMW}, SMALL_CONV),
    small("ViT", {**POWER_ARMS, **ADAMW, **MUON}, SMALL_VIT),
    small("conv net, scale raw", RAW, SMALL_CONV),
]
QUICK = Cell(
    "quick", {name: POWER_ARMS[name] for name in ("p = 0", "p = 1/8")}, (0.01, 0.02, 0.04), BASELINE,
    {**SMALL_VIT, "steps": 2},
)  # fmt: skip


class ConvNet(nn.Module):
    """Four convolutions with group norms, of which two halve the image, and an output layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sides = ((1, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 4 * width, 2))
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, stride, padding=1, bias=False) for i, o, stride in sides)
        self.norms = nn.ModuleList(nn.GroupNorm(8, o) for _, o, _ in sides)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x)).relu()
        return self.head(x.mean((-2, -1)))


class Block(nn.Module):
    """Pre-norm attention and MLP; query, key and value are separate layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus attention, plus the MLP of that sum."""
        y = self.norm_attention(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        x = x + self.output(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.norm_mlp(x))))


class ViT(nn.Module):
    """A vision Transformer on patches of 4 x 4 pixels that takes the mean over places."""

    def __init__(self, side: int, width: int, depth: int, heads: int = 4, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.places = nn.Embedding((side // patch) ** 2, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places.weight
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


def loss(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the mean cross-entropy."""
    return cross_entropy(model(images), classes)


@functools.cache
def data(device: str, folder: str) -> fashion_mnist.Images:
    """Return the images on a device."""
    found = fashion_mnist.load(Path(folder)) if folder else fashion_mnist.digits()
    return fashion_mnist.Images(found.name, *(tuple(part.to(device) for part in parts) for parts in found[1:]))


@torch.no_grad()
def error(model: nn.Module, images: Tensor, classes: Tensor) -> float:
    """Return the share of images that a model takes for another class, in percent."""
    wrong = sum(
        (model(some).argmax(-1) != right).sum()
        for some, right in zip(images.split(2000), classes.split(2000), strict=True)
    )
    return 100 * float(wrong) / len(classes)


def run(
    settings: Mapping[str, Any],
    lr: float,
    seeds: Sequence[int],
    device: str,
    make_optimizers: Optimizers | None = None,
) -> list[dict[str, Any]]:
    """Train a network for each seed and return its figures."""
    found = data(device, settings["data"])
    images, classes = found.train
    rows = drawn(len(images), settings, seeds, device)
    width, side = settings["width"], images.shape[-1]
    together, seconds = train(
        lambda: ConvNet(width) if settings["network"] == "conv" else ViT(side, width, settings["depth"]),
        loss,
        lambda step: (images[rows[step]], classes[rows[step]]),
        settings,
        lr,
        seeds,
        device,
        make_optimizers,
    )
    return [
        {
            METRIC: error(model, *found.test),
            TUNED_BY: error(model, *found.validation),
            **spectra(model, "layers.*"),
            "seconds": seconds / len(seeds),
            "machine": machine(device),
        }
        for model in together.models
    ]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(fashion_mnist.FOLDER), help="the folder of Fashion-MNIST")
    options = parser.parse_args()
    study = Study("images", run, METRIC, True, options, tuned_by=TUNED_BY, shared={"data": options.data}, overview=True)
    carry_out(study, [QUICK] if options.quick else CELLS, __doc__)


if __name__ == "__main__":
    main()
