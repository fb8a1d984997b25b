"""Find the partner of every matrix of one network in another: by name, and where names say nothing, by shape and values."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from htsr.comparison.survey.networks import Axes, Network, Sample

# The distance of two matrices is |A - B| / sqrt((|A|^2 + |B|^2) / 2): 0 if they are equal, sqrt(2) if they are independent. It
# is 1.18 for two of equal norm whose correlation is CORRELATED.
INDEPENDENT = math.sqrt(2)
CORRELATED = 0.3
RELATED = math.sqrt(2 - 2 * CORRELATED)
# Matrices of one name that differ by more than this are also compared with those of other names. Numbers as names, as exporters
# give them, agree by chance.
DOUBTFUL = 0.5
# A matrix is compared with all others of its shape if these are no more than ALL, and with those of the nearest norms beyond.
ALL, NEAREST = 1024, 64

Samples = Sequence[Sample | None]


@dataclass(frozen=True)
class Pair:
    """A matrix of network A and its partner in B, by their positions.

    Attributes:
        a: Position in A.
        b: Position in B.
        axes: Order of the axes of B's matrix, without sides of 1, that makes it A's.
        distance: An estimate of their distance, from the samples.
        constant: Whether one of them has equal values only, so that it says nothing about kinship.
    """

    a: int
    b: int
    axes: Axes
    distance: float
    constant: bool


def match(a: Network, b: Network) -> list[Pair]:
    """Return the matrices that two sampled networks share, in the order of A; no matrix is in two pairs."""
    place_in_b = {layer.name: number for number, layer in enumerate(b.layers)}
    named = [(number, place_in_b[layer.name]) for number, layer in enumerate(a.layers) if layer.name in place_in_b]
    by_name = _pairs(a.samples, b.samples, named)
    chosen = [pair for pair in by_name if pair.distance <= DOUBTFUL]
    if len(chosen) < min(len(a.layers), len(b.layers)):
        chosen += _by_content(a.samples, b.samples, chosen, by_name)
    return sorted(chosen, key=lambda pair: pair.a)


def _by_content(a: Samples, b: Samples, chosen: Sequence[Pair], by_name: Sequence[Pair]) -> list[Pair]:
    """Return pairs of the matrices that are in no pair yet: related ones, the closest first, then by name, then in order."""
    free_a, free_b = set(range(len(a))), set(range(len(b)))
    found: list[Pair] = []

    def take(pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            if pair.a in free_a and pair.b in free_b:
                found.append(pair)
                free_a.remove(pair.a)
                free_b.remove(pair.b)

    take(chosen)
    found.clear()
    candidates = []
    for of_a, of_b in _of_one_shape(a, b, free_a, free_b):
        candidates += _related(a, b, of_a, of_b)
    take(sorted(_pairs(a, b, candidates), key=lambda pair: pair.distance))
    take(by_name)
    rest: list[tuple[int, int]] = []
    for of_a, of_b in _of_one_shape(a, b, free_a, free_b):
        rest += zip(of_a, of_b, strict=False)
    take(_pairs(a, b, rest))
    return found


def _of_one_shape(a: Samples, b: Samples, free_a: set[int], free_b: set[int]) -> list[tuple[list[int], list[int]]]:
    """Return the positions of the free matrices of A and B that have one shape, in whatever order of the axes."""
    classes: dict[tuple[int, ...], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, samples, free in ((0, a, free_a), (1, b, free_b)):
        for number in sorted(free):
            sample = samples[number]
            if sample is not None:
                classes[tuple(sorted(sample.shape))][side].append(number)
    return [(of_a, of_b) for of_a, of_b in classes.values() if of_a and of_b]


def _related(a: Samples, b: Samples, of_a: Sequence[int], of_b: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of matrices of one shape that are related in some order of the axes, as far as their samples say."""
    norms = np.array([sample.norm for j in of_b if (sample := b[j]) is not None])
    found: list[tuple[int, int]] = []
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i in of_a:
        by_shape[_there(a[i]).shape].append(i)
    for shape, same in by_shape.items():
        if len(of_b) > ALL:
            for i in same:
                near = np.argsort(np.abs(norms - _there(a[i]).norm), kind="stable")[:NEAREST]
                found += _close(a, b, [i], [of_b[place] for place in near], shape)
        else:
            found += _close(a, b, same, of_b, shape)
    return found


def _close(
    a: Samples, b: Samples, of_a: Sequence[int], of_b: Sequence[int], shape: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Return the pairs of these matrices, those of A all of one shape, that are related."""
    of_b = [j for j in of_b if shape in _there(b[j]).views]
    if not of_b:
        return []
    first = np.stack([_there(a[i]).values for i in of_a]).astype(np.float64)
    views = [_there(b[j]).views[shape][1] for j in of_b]
    owner = np.repeat(of_b, [len(view) for view in views])
    second = np.concatenate(views).astype(np.float64)
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None]
    near = squares - 2 * first @ second.T < RELATED**2 * squares / 2
    return list(dict.fromkeys((of_a[i], int(owner[j])) for i, j in zip(*np.nonzero(near), strict=True)))


def _pairs(a: Samples, b: Samples, places: Iterable[tuple[int, int]]) -> list[Pair]:
    """Return matrices of A and B as pairs, each in the order of the axes in which the two are closest.

    Two that cannot be read, or whose shapes no order of the axes makes equal, give no pair.
    """
    groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, int]]] = defaultdict(list)
    for i, j in places:
        first, second = a[i], b[j]
        if first is not None and second is not None and first.shape in second.views:
            groups[first.shape, second.shape].append((i, j))
    found = []
    for (shape, _), together in groups.items():
        # the square of a float32 may be none
        values = np.stack([_there(a[i]).values for i, _ in together]).astype(np.float64)[:, None]
        views = np.stack([_there(b[j]).views[shape][1] for _, j in together]).astype(np.float64)
        scale = np.sqrt(((values**2).sum(-1) + (views**2).sum(-1)) / 2)
        apart = np.sqrt(((values - views) ** 2).sum(-1))
        distances = np.divide(apart, scale, out=np.zeros_like(apart), where=scale > 0)
        best = distances.argmin(1)  # the first of equals: the axes as they are, if possible
        for (i, j), which, row in zip(together, best, distances, strict=True):
            first, second = _there(a[i]), _there(b[j])
            constant = first.constant or second.constant
            found.append(Pair(i, j, second.views[shape][0][which], float(row[which]), constant))
    return found


def _there(sample: Sample | None) -> Sample:
    """Return a sample that is known to exist."""
    assert sample is not None
    return sample
