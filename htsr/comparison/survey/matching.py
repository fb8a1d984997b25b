"""Find the partner of every matrix of one network in another: by name, and where names say nothing, by shape and values."""

import math
from collections import defaultdict
from collections.abc import Sequence
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
# A matrix is compared with all nameless ones of its shape up to this many, and with those of the nearest norms beyond.
NEAREST = 64


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
    place_in_b = {layer.name: number for number, layer in enumerate(b.layers) if b.samples[number] is not None}
    pairs: list[Pair] = []
    named = [(number, place_in_b[layer.name]) for number, layer in enumerate(a.layers) if layer.name in place_in_b]
    doubtful: list[Pair] = []
    for i, j in named:
        pair = _pair(a.samples, b.samples, i, j)
        if pair is not None:
            (pairs if pair.distance <= DOUBTFUL else doubtful).append(pair)
    taken_a, taken_b = {pair.a for pair in pairs}, {pair.b for pair in pairs}
    classes: dict[tuple[int, ...], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, (network, taken) in enumerate(((a, taken_a), (b, taken_b))):
        for number, sample in enumerate(network.samples):
            if sample is not None and number not in taken:
                classes[tuple(sorted(sample.shape))][side].append(number)
    by_name = {(pair.a, pair.b): pair for pair in doubtful}
    for of_a, of_b in classes.values():
        pairs += _by_content(a.samples, b.samples, of_a, of_b, by_name)
    return sorted(pairs, key=lambda pair: pair.a)


def _pair(a: Sequence[Sample | None], b: Sequence[Sample | None], i: int, j: int) -> Pair | None:
    """Return two matrices as a pair, in the order of the axes in which they are closest; None if their shapes do not allow it."""
    first, second = a[i], b[j]
    if first is None or second is None or first.shape not in second.views:
        return None
    axes, values = second.views[first.shape]
    differences = _distances(first, values)
    best = int(differences.argmin())  # the first of equals: the axes as they are, if possible
    return Pair(i, j, axes[best], float(differences[best]), first.constant or second.constant)


def _distances(first: Sample, values: np.ndarray) -> np.ndarray:
    """Return the distance of a sample from each row of values."""
    own = first.values
    scale = np.sqrt(((own**2).sum() + (values**2).sum(axis=1)) / 2)
    apart = np.sqrt(((values - own) ** 2).sum(axis=1))
    return np.divide(apart, scale, out=np.zeros_like(apart), where=scale > 0)


def _by_content(
    a: Sequence[Sample | None],
    b: Sequence[Sample | None],
    of_a: Sequence[int],
    of_b: Sequence[int],
    by_name: dict[tuple[int, int], Pair],
) -> list[Pair]:
    """Return pairs of the matrices of one shape, the closest first; two that are unrelated keep to their names, if they can."""
    norms = np.array([sample.norm for j in of_b if (sample := b[j]) is not None])
    found = []
    for i in of_a:
        near: Sequence[int] = of_b
        first = a[i]
        if len(of_b) > NEAREST and first is not None:
            near = [of_b[place] for place in np.argsort(np.abs(norms - first.norm), kind="stable")[:NEAREST]]
        found += [pair for j in near if (pair := _pair(a, b, i, j)) is not None]
    related = sorted((pair for pair in found if pair.distance < RELATED), key=lambda pair: pair.distance)
    rest = [*by_name.values(), *found]
    chosen: list[Pair] = []
    free_a, free_b = set(of_a), set(of_b)
    for pair in [*related, *rest]:
        if pair.a in free_a and pair.b in free_b:
            chosen.append(pair)
            free_a.remove(pair.a)
            free_b.remove(pair.b)
    return chosen
