"""Fashion-MNIST from Debian's package ``dataset-fashion-mnist``, or scikit-learn's digits where it is not installed."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FOLDER = Path("/usr/share/datasets/fashion-mnist")
# A sixth of the images to train on is kept for tuning.
KEPT_EVERY = 6


class Images(NamedTuple):
    """Images of shape (n, 1, height, width) with mean 0 and standard deviation 1, and their classes."""

    name: str
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(folder: Path = FOLDER) -> Images:
    """Return Fashion-MNIST from a folder, or digits if it is not there."""
    if not folder.exists():
        return digits()
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return _split("Fashion-MNIST", *(_idx(folder / f"{name}-ubyte.gz") for name in names))


def digits() -> Images:
    """Return scikit-learn's digits, of which every fifth is kept for testing."""
    from sklearn.datasets import load_digits

    found = load_digits()
    test = np.arange(len(found.target)) % 5 == 0
    return _split("digits", found.images[~test], found.target[~test], found.images[test], found.target[test])


def _split(
    name: str, images: np.ndarray, classes: np.ndarray, test_images: np.ndarray, test_classes: np.ndarray
) -> Images:
    """Return images with mean 0 and standard deviation 1; a sixth of those to train on is kept for tuning."""
    mean, deviation = images.mean(), images.std()

    def part(images: np.ndarray, classes: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = torch.tensor((images.astype(np.float32) - mean) / deviation, dtype=torch.float32)
        return pixels[:, None], torch.tensor(classes).long()

    kept = np.arange(len(classes)) % KEPT_EVERY == 0
    return Images(
        name, part(images[~kept], classes[~kept]), part(images[kept], classes[kept]), part(test_images, test_classes)
    )


def _idx(path: Path) -> np.ndarray:
    """Return the array of unsigned bytes in a file of the IDX format."""
    with gzip.open(path) as file:
        content = file.read()
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
