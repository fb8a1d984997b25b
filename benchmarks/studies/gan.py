"""What p does to a generator: a DCGAN on Fashion-MNIST, its ConvTranspose kernels audited over the training.

    apt-get install dataset-fashion-mnist
    python benchmarks/studies/gan.py            # goes on where it was stopped
    python benchmarks/studies/gan.py --report   # tables and pictures of the runs that are there

Generator and discriminator (Radford et al. 2016, arXiv 1511.06434, at 28 x 28 pixels) share optimizer, p and learning rate. The
figure is the Fréchet distance between 10,000 made images and the test images, over their 64 leading principal components; the
learning rate is tuned on the distance to the validation images. ``alpha`` and ``stable_rank`` are medians over the generator's
layers at the end; ``alpha_25`` to ``alpha_100`` are those of its second ConvTranspose after each quarter of the training.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import fashion_mnist
import torch
from images import data
from report import carry_out
from study import Cell, Study, arguments, machine, rates
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from training import BASELINE, POWERS, optimizers

import htsr

METRIC, TUNED_BY = "frechet_distance", "validation_distance"
BATCH, NOISE, COMPONENTS, SIDE = 64, 64, 64, 28
THREE = ("p = -1/8", "p = 0", "p = 1/8")
ARMS = {**{name: {"power": POWERS[name]} for name in THREE}, "AdamW": {"optimizer": "adamw", "lrs": rates(0.0005, 3)}}
CELLS = [Cell("DCGAN", ARMS, rates(0.002, 3), BASELINE, {"steps": 600, "width": 16, "made": 10_000})]
QUICK = Cell("quick", {name: ARMS[name] for name in (BASELINE, "p = 1/8")}, (0.01, 0.02, 0.04), BASELINE,
             {"steps": 4, "width": 8, "made": 1000})  # fmt: skip


def generator(width: int) -> nn.Module:
    """Return a network from noise of shape (n, NOISE, 1, 1) to images."""
    return nn.Sequential(
        nn.ConvTranspose2d(NOISE, 4 * width, 7, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 3, 1, 1),
    )  # fmt: skip


def discriminator(width: int) -> nn.Module:
    """Return a network from images to one logit."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 1, 7),
    )  # fmt: skip


@functools.cache
def real(device: str, folder: str) -> dict[str, Tensor]:
    """Return the images of each part at 28 x 28 pixels."""
    found = data(device, folder)

    def sized(images: Tensor) -> Tensor:
        return images if images.shape[-1] == SIDE else interpolate(images, SIDE)

    return {part: sized(getattr(found, part)[0]) for part in ("train", "validation", "test")}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the distance of two samples by means and covariances (Heusel et al. 2017), in float64.

    Args:
        a: A sample, shape (n, d).
        b: Another sample, shape (m, d).
    """
    a, b = a.double(), b.double()
    root_values, root_vectors = torch.linalg.eigh(torch.cov(a.T))
    root = (root_vectors * root_values.clamp(min=0).sqrt()) @ root_vectors.T
    between = torch.linalg.eigvalsh(root @ torch.cov(b.T) @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + torch.trace(torch.cov(a.T)) + torch.trace(torch.cov(b.T)) - 2 * between)


def run(settings: Mapping[str, Any], lr: float, seeds: Sequence[int], device: str) -> list[dict[str, float]]:
    """Train a pair of networks for each seed, one after the other, and return its figures."""
    return [_run_one(settings, lr, seed, device) for seed in seeds]


def _run_one(settings: Mapping[str, Any], lr: float, seed: int, device: str) -> dict[str, float]:
    start = time.perf_counter()
    torch.manual_seed(seed)
    images, steps = real(device, settings["data"]), settings["steps"]
    makes, judges = generator(settings["width"]).to(device), discriminator(settings["width"]).to(device)
    for module in (*makes.modules(), *judges.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)  # as in the paper
    # parameter_groups leaves kernels of ConvTranspose to AdamW. Flattened, one is the transpose of the matrix that it applies.
    inner = {
        f"{place}.weight": "htmuon" for place, module in enumerate(makes[:-1]) if isinstance(module, nn.ConvTranspose2d)
    }
    of_maker = optimizers([makes], settings, lr, steps, inner)
    of_judge = optimizers([judges], settings, lr, steps)
    one, zero = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)

    def loss(batch: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(judges(batch).flatten(), target)

    kept: dict[str, float] = {}
    for step in range(1, steps + 1):
        rows = torch.randint(len(images["train"]), (BATCH,))
        made = makes(torch.randn(BATCH, NOISE, 1, 1).to(device)).tanh() * 2
        _step(of_judge, loss(images["train"][rows.to(device)], one) + loss(made.detach(), zero))
        _step(of_maker, loss(made, one))
        if step % (steps // 4) == 0:
            details = htsr.analyze(makes, bulk=False, progress=False).details
            kept[f"alpha_{100 * step // steps}"] = float(details["alpha"].iloc[1])
    with torch.no_grad():
        sample = torch.cat(
            [makes(torch.randn(1000, NOISE, 1, 1).to(device)).tanh() * 2 for _ in range(settings["made"] // 1000)]
        )
    mean = images["train"].flatten(1).mean(0)
    axes = torch.linalg.eigh(torch.cov((images["train"].flatten(1) - mean).T))[1][:, -COMPONENTS:]
    parts = {part: (images[part].flatten(1) - mean) @ axes for part in ("validation", "test")}
    own = (sample.flatten(1) - mean) @ axes
    return {
        METRIC: frechet_distance(own, parts["test"]),
        TUNED_BY: frechet_distance(own, parts["validation"]),
        **kept,
        "alpha": float(details["alpha"].median()),
        "stable_rank": float(details["stable_rank"].median()),
        "seconds": time.perf_counter() - start,
        "machine": machine(device),
    }


def _step(used: list[torch.optim.Optimizer], loss: Tensor) -> None:
    for optimizer in used:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in used:
        optimizer.step()


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(fashion_mnist.FOLDER), help="the folder of Fashion-MNIST")
    options = parser.parse_args()
    study = Study(
        "gan",
        run,
        METRIC,
        True,
        options,
        tuned_by=TUNED_BY,
        shared={"data": options.data},
        tuning=(100,),
        final=(0, 1, 2, 3, 4),
    )
    carry_out(study, [QUICK] if options.quick else CELLS, __doc__)


if __name__ == "__main__":
    main()
