"""What a survey knows of one file: its matrices, its vectors, and a small sample of every matrix.

The sample holds the values at some places of the matrix, the same places for every matrix of one shape, read along each order
of the axes. Two samples therefore estimate how far two matrices differ, also if one of them is stored transposed, without
reading either again.
"""

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from htsr.comparison.survey.files import WeightFile
from htsr.errors import InputError
from htsr.weights.inventory import Layer, StoredTensor
from htsr.weights.splitting import FLOATING, Splitting, split_into_layers

# Values in the sample of a matrix. 256 tell a relative change of 1.41 (independent weights) from one of 1 by five standard
# errors; a network of 16,384 matrices keeps 16 of each, so that the samples of any file fit into some megabytes.
SAMPLE, MIN_SAMPLE, SAMPLES_OF_A_FILE = 256, 16, 2**20
# Types that hold weights as they are; every other type is a quantised one.
PLAIN = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}

Shape = tuple[int, ...]
Axes = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """A few values of a matrix.

    Attributes:
        shape: Its shape without sides of 1.
        norm: Its Frobenius norm.
        constant: Whether all of its values are equal.
        views: For every shape that an order of the axes gives, those orders and the values that each gives, one row an order.
    """

    shape: Shape
    norm: float
    constant: bool
    views: dict[Shape, tuple[list[Axes], np.ndarray]] = field(repr=False)

    @property
    def values(self) -> np.ndarray:
        """The values in the order of the axes as they are."""
        return self.views[self.shape][1][0]


@dataclass
class Network:
    """The weights of one file, described but not loaded.

    Attributes:
        layers: Its matrices, each once if layers share it.
        vectors: Its biases, norms and other vectors.
        tensors: How many tensors of weights it stores.
        parameters: How many values these have.
        dtypes: Types of its weights, the one with the most values first.
        samples: A sample of each matrix, None for one that cannot be read; empty until ``draw_samples``.
        unread: Why a matrix cannot be read, by its name.
    """

    layers: list[Layer]
    vectors: list[StoredTensor]
    tensors: int
    parameters: int
    dtypes: list[str]
    samples: list[Sample | None] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> Counter[Shape]:
        """How many matrices there are of each shape, in whatever order of the axes."""
        return Counter(tuple(sorted(squeezed(layer.shape))) for layer in self.layers)

    @cached_property
    def values(self) -> int:
        """The number of values of all matrices."""
        return sum(math.prod(layer.shape) for layer in self.layers)

    @cached_property
    def precision(self) -> int:
        """Bits of the type that holds most of the weights; 8 for every quantised type."""
        return PLAIN.get(self.dtypes[0], 8) if self.dtypes else 0

    def draw_samples(self) -> None:
        """Read every matrix once, one at a time, and keep a sample of it."""
        size = max(MIN_SAMPLE, min(SAMPLE, SAMPLES_OF_A_FILE // max(len(self.layers), 1)))
        for layer in self.layers:
            try:
                self.samples.append(sample(layer.load(), size))
            except (ValueError, OSError, MemoryError) as err:
                self.samples.append(None)
                self.unread[layer.name] = str(err) or "out of memory"


def open_network(file: WeightFile) -> Network:
    """Return the network of a file; raise InputError or OSError if it cannot be read or holds no matrix."""
    listing = file.list_tensors()
    inventory = split_into_layers(listing, Splitting("pool", False))
    layers = [layer for layer in inventory.layers if layer.tied_to is None]
    if not layers:
        reasons = Counter(item.reason for item in inventory.skipped)
        said = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        raise InputError(f"it holds no weight matrix ({said})" if said else "it holds no tensor")
    weights = [stored for stored in listing.tensors if _is_weight(stored)]
    of_type: dict[str, int] = defaultdict(int)
    for layer in layers:
        of_type[layer.dtype] += math.prod(layer.shape)
    return Network(
        layers=layers,
        vectors=[stored for stored in weights if len(stored.shape) == 1 and stored.reason is None],
        tensors=len(weights),
        parameters=sum(math.prod(stored.shape) for stored in weights),
        dtypes=sorted(of_type, key=lambda dtype: -of_type[dtype]),
    )


def _is_weight(stored: StoredTensor) -> bool:
    """Return whether a tensor holds parameters: floating-point or quantised values, no scales, buffers or single numbers."""
    beside = (stored.reason or "").startswith(("part of", "a buffer", "a file", "type "))
    return bool(stored.shape) and not beside and (stored.quantised or FLOATING.fullmatch(stored.dtype) is not None)


def squeezed(shape: Shape) -> Shape:
    """Return a shape without sides of 1, but one of them if there is no other."""
    return tuple(side for side in shape if side != 1) or (1,)


def without_ones(weight: torch.Tensor) -> torch.Tensor:
    """Return a matrix without sides of 1, in a type that torch can compute with."""
    wide = weight.float() if weight.dtype.itemsize == 1 else weight
    return wide.reshape(squeezed(tuple(wide.shape)))


def sample(weight: torch.Tensor, size: int = SAMPLE) -> Sample:
    """Return the sample of a matrix."""
    weight = without_ones(weight)
    shape = tuple(weight.shape)
    count = weight.numel()
    places = np.sort(np.random.default_rng(count).integers(count, size=min(size, count)))
    views: dict[Shape, tuple[list[Axes], list[np.ndarray]]] = defaultdict(lambda: ([], []))
    for axes in orders_of_axes(len(shape)):
        seen = tuple(shape[axis] for axis in axes)
        index = np.unravel_index(places, seen)
        values = weight[tuple(torch.from_numpy(index[axes.index(axis)]) for axis in range(len(shape)))]
        views[seen][0].append(axes)
        largest = np.finfo(np.float32).max
        bounded = np.nan_to_num(values.double().numpy()).clip(-largest, largest)
        views[seen][1].append(bounded.astype(np.float32))
    alike = bool((weight[(0,) * len(shape)] == weight.flatten()[places]).all())
    return Sample(
        shape=shape,
        norm=float(torch.linalg.vector_norm(weight, dtype=torch.promote_types(weight.dtype, torch.float32))),
        constant=alike and bool((weight == weight[(0,) * len(shape)]).all()),
        views={seen: (axes, np.stack(values)) for seen, (axes, values) in views.items()},
    )


def orders_of_axes(dims: int) -> list[Axes]:
    """Return every order of so many axes, the one as they are first; of five and more only that one and the first two swapped."""
    if dims <= 4:
        return list(itertools.permutations(range(dims)))
    return [tuple(range(dims)), (1, 0, *range(2, dims))]
