"""Matrices for the benchmarks of HTMuon: momenta of real trainings, and matrices whose singular values are known.

python benchmarks/momenta.py       records the momenta, prints what it has, and keeps them for the other benchmarks
"""

import argparse
import hashlib
import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import platformdirs
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from htsr.demo.corpus import standard_library
from htsr.demo.gpt import GPT, tokens
from htsr.optim import HTMuon, parameter_groups

STEPS = (1, 10, 100, 1000)
# 8 x 32 bytes are fewer rows than the widest matrix of the GPT has, so that its first momenta are rank-deficient.
CONTEXT = 32
RANKS = (1, 4, 16, 64)
# The largest entry of what becomes float16, as loss scaling arranges it: far from overflow, and most entries are normal.
FLOAT16_TOP = 2.0**10


class Momentum(NamedTuple):
    """What HTMuon raised to its power in one step of a training, in the dtype of the parameter.

    Attributes:
        training: The training.
        name: The parameter.
        step: The step, from 1.
        matrix: The Nesterov momentum; convolution kernels are flattened to (out, in * height * width).
    """

    training: str
    name: str
    step: int
    matrix: Tensor


@dataclass(frozen=True)
class Training:
    """A training with HTMuon's defaults, but exact powers, so that the kernel under test does not decide its own momenta."""

    model: str
    batch: int
    dtype: torch.dtype
    last: int
    width: int = 128
    depth: int = 2

    @property
    def name(self) -> str:
        """The name that tables use."""
        dtype = "" if self.dtype == torch.float32 else f", {str(self.dtype).removeprefix('torch.')} parameters"
        width = "" if self.width == 128 else f" of width {self.width}"
        return f"{self.model}{width}, batch {self.batch}{dtype}"


TRAININGS = (
    Training("digits", 8, torch.float32, 1000),
    Training("digits", 64, torch.float32, 1000),
    Training("GPT", 8, torch.float32, 1000),
    Training("GPT", 64, torch.float32, 1000),
    Training("digits", 8, torch.bfloat16, 1000),
    Training("GPT", 8, torch.bfloat16, 100),  # a CPU without bfloat16 arithmetic takes long for more
    Training("GPT", 8, torch.float32, 10, width=768, depth=1),  # a block of GPT-2 small
)


class DigitsNet(nn.Module):
    """A small convolutional network for 8 x 8 images with ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.mlp = nn.Sequential(
            nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()
        )
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (batch, 10)."""
        return self.head(self.mlp(self.features(images).flatten(1)))


def recorded(last: int = STEPS[-1], device: str = "cpu") -> Iterator[Momentum]:
    """Yield the momenta of all trainings up to a step; train only those that an earlier call has not kept on disk."""
    cache_directory = os.environ.get("HTSR_CACHE_DIR") or platformdirs.user_cache_dir("htsr", appauthor=False)
    folder = Path(cache_directory) / "momenta"
    folder.mkdir(parents=True, exist_ok=True)
    code = "".join(map(inspect.getsource, (DigitsNet, record, _task)))
    for training in TRAININGS:
        end = min(last, training.last)
        key = hashlib.sha256(f"{code}{training}{CONTEXT}{STEPS}{device}{torch.__version__}".encode())
        file = folder / f"{training.name}, {end} steps, {key.hexdigest()[:8]}.pt"
        if not file.exists():
            torch.save([momentum._asdict() for momentum in record(training, end, device)], file)
        yield from (Momentum(**momentum) for momentum in torch.load(file, map_location="cpu"))


def record(training: Training, last: int, device: str = "cpu") -> Iterator[Momentum]:
    """Train for ``last`` steps and yield the momenta of every matrix that HTMuon updates, at ``STEPS``."""
    torch.manual_seed(0)
    model, loss_of_next_batch = _task(training, device)
    optimizer = HTMuon(parameter_groups(model), method="eigh")
    for step in range(1, last + 1):
        optimizer.zero_grad()
        loss_of_next_batch().backward()
        optimizer.step()
        if step in STEPS:
            for group in optimizer.param_groups:
                if group["algorithm"] == "htmuon":
                    for name, p in zip(group["param_names"], group["params"], strict=True):
                        momentum = nesterov_momentum(p.grad, optimizer.state[p]["momentum_buffer"], group["momentum"])
                        yield Momentum(training.name, name, step, momentum.flatten(1).cpu())


def nesterov_momentum(grad: Tensor, buffer: Tensor, momentum: float) -> Tensor:
    """Return what HTMuon updated with in the step that moved the buffer by this gradient."""
    return grad.to(buffer.dtype).lerp(buffer, momentum)


def _task(training: Training, device: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a model and a function that returns its loss on one random batch after the other."""
    draw = torch.Generator().manual_seed(1)
    if training.model == "GPT":
        text, gpt = _text(), GPT(CONTEXT, training.width, training.depth).to(device, training.dtype)

        def next_loss() -> Tensor:
            starts = torch.randint(len(text) - CONTEXT, (training.batch, 1), generator=draw)
            return gpt.loss(text[starts + torch.arange(CONTEXT + 1)].to(device))

        return gpt, next_loss

    from sklearn.datasets import load_digits

    digits, net = load_digits(), DigitsNet().to(device, training.dtype)
    images = torch.tensor(digits.images / 16).unsqueeze(1).to(device, training.dtype)
    classes = torch.tensor(digits.target).to(device)

    def next_digits_loss() -> Tensor:
        chosen = torch.randint(len(images), (training.batch,), generator=draw).to(device)
        return cross_entropy(net(images[chosen]), classes[chosen])

    return net, next_digits_loss


@cache
def _text() -> Tensor:
    return tokens(standard_library()[0])


class Known(NamedTuple):
    """A float64 matrix made from its singular value decomposition."""

    kind: str
    U: Tensor
    S: Tensor
    Vh: Tensor


def known(shapes: Iterable[tuple[int, int]], seeds: int = 1) -> Iterator[Known]:
    """Yield products of Gaussian factors, and matrices with random singular vectors and prescribed singular values."""
    for seed in range(seeds):
        draw = torch.Generator().manual_seed(seed)
        for m, n in shapes:
            k = min(m, n)
            for rank in (rank for rank in RANKS if rank < k):
                yield Known(f"rank {rank}", *_svd_of_product(_gaussian(m, rank, draw), _gaussian(rank, n, draw)))
            # a product of two square factors would have singular values near zero
            yield Known("full rank", *torch.linalg.svd(_gaussian(m, n, draw), full_matrices=False))
            U, V = (torch.linalg.qr(_gaussian(side, k, draw))[0] for side in (m, n))
            ranks = torch.arange(1, k + 1, dtype=torch.float64)
            yield Known("1 / i", U, 1 / ranks, V.mT)
            yield Known("1 / i^2", U, ranks**-2, V.mT)
            yield Known("geometric to 1e-6", U, torch.logspace(0, -6, k, dtype=torch.float64), V.mT)


def _gaussian(rows: int, columns: int, draw: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=draw, dtype=torch.float64)


def _svd_of_product(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular value decomposition of ``left @ right`` without the singular values that are zero."""
    (Q, R), (P, T) = torch.linalg.qr(left), torch.linalg.qr(right.mT)
    U, S, Vh = torch.linalg.svd(R @ T.mT)
    return Q @ U, S, Vh @ P.mT


def cast(matrix: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Return the matrix in a dtype, multiplied before by a power of two for float16, and that power."""
    factor = 1.0
    if dtype == torch.float16:
        factor = 2.0 ** torch.log2(FLOAT16_TOP / matrix.abs().max()).floor().item()
    return (matrix * factor).to(dtype), factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten steps of each training")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    start = time.perf_counter()
    momenta = list(recorded(10 if options.quick else STEPS[-1], options.device))
    for training in TRAININGS:
        own = [momentum for momentum in momenta if momentum.training == training.name]
        shapes = sorted({tuple(momentum.matrix.shape) for momentum in own})
        print(f"{training.name}: {len(own)} momenta, shapes {shapes}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
