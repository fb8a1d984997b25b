"""Put files into networks, which hold the same weights, and networks into families, which have a common origin."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from htsr.comparison.survey.networks import Network
from htsr.comparison.survey.relations import COMMON_ORIGIN, KIN, SAME_NETWORK, Relation, estimate, relate

# Goes through some files, under a heading, and shows how far it is.
Watch = Callable[[Sequence[int], str], Iterable[int]]
# Of networks at nearly the same estimated distance, the one with the fewest matrices and then the most precise one is taken: a
# file is said to be quantised from the float32 file rather than from its bfloat16 copy. Distances below ZERO are zero.
TIE, ZERO = 0.05, 1e-6


@dataclass(frozen=True)
class Link:
    """A file's relation to another one, by its position."""

    to: int
    relation: Relation


def link_networks(networks: dict[int, Network], names: Sequence[str], watch: Watch) -> dict[int, Link]:
    """Return for each network the one that it is closest to, among those that hold more or are stored more precisely.

    Shapes decide which files are read at all, and samples of their matrices which two are compared in full: each network with
    one other, so that the cost grows with the number of files and not with that of their pairs.
    """
    order = sorted(networks, key=lambda number: (-networks[number].values, -networks[number].precision, number))
    comparable = {number: _comparable(number, networks) for number in order}
    for number in watch([number for number in order if comparable[number]], "read"):
        networks[number].draw_samples()
    links: dict[int, Link] = {}
    done: list[int] = []
    for number in watch(order, "compare"):
        earlier = [other for other in done if other in comparable[number]]
        done.append(number)
        estimates = {other: estimate(networks[number], networks[other]) for other in earlier}
        kin = [other for other in earlier if estimates[other][0]]
        like = [other for other in earlier if networks[other].shapes == networks[number].shapes]
        if not kin and not like:
            continue
        apart = {other: estimates[other][1] for other in kin or like}
        near = [other for other in apart if apart[other] <= (1 + TIE) * min(apart.values()) + ZERO]
        nearest = min(near, key=lambda other: len(networks[other].layers))
        relation = relate(networks[number], networks[nearest], names[nearest])
        if relation.kind == "part of":  # two networks can have a part in common
            own = _first(nearest, links)
            also = [names[other] for other in near if _first(other, links) != own]
            if also:
                relation = replace(relation, evidence=f"{relation.evidence}; also part of {', '.join(also)}")
        if relation.kind:
            links[number] = Link(nearest, relation)
    return links


def _first(number: int, links: Mapping[int, Link]) -> int:
    """Return the first file of a file's network."""
    while number in links and links[number].relation.kind in SAME_NETWORK:
        number = links[number].to
    return number


def _comparable(number: int, networks: dict[int, Network]) -> set[int]:
    """Return the networks that share the shapes of half of the smaller one's values with a network, so that they may be kin."""
    shapes, found = networks[number].shapes, set()
    for other, network in networks.items():
        common = sum(math.prod(shape) * count for shape, count in (shapes & network.shapes).items())
        if other != number and common >= KIN * min(networks[number].values, network.values):
            found.add(other)
    return found


def network_numbers(files: Sequence[int], links: Mapping[int, Link]) -> dict[int, int]:
    """Return the number of each file's network."""
    return _numbered(files, links, SAME_NETWORK)


def family_numbers(files: Sequence[int], links: Mapping[int, Link]) -> dict[int, int]:
    """Return the number of each file's family."""
    return _numbered(files, links, (*SAME_NETWORK, *COMMON_ORIGIN))


def _numbered(files: Sequence[int], links: Mapping[int, Link], kinds: Sequence[str]) -> dict[int, int]:
    """Return the number of the group of each file, where links of these kinds join files; groups are numbered from 1."""
    leader = {number: number for number in files}

    def find(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    for number, link in links.items():
        if link.relation.kind in kinds and number in leader:
            first, second = sorted((find(number), find(link.to)))
            leader[second] = first
    sizes = Counter(map(find, files))
    numbers: dict[int, int] = {}
    for number in sorted(files, key=lambda number: sizes[find(number)] == 1):  # groups of one file come last
        numbers.setdefault(find(number), len(numbers) + 1)
    return {number: numbers[find(number)] for number in files}
