"""What two networks have in common, matrix by matrix, and the relation that follows from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from htsr.comparison.figures import percent
from htsr.comparison.survey.differences import SAME, Difference, difference
from htsr.comparison.survey.matching import INDEPENDENT, RELATED, Pair, match
from htsr.comparison.survey.networks import Network
from htsr.weights.inventory import LoadPart, StoredTensor
from htsr.weights.parts import Part

# Relations by which two files hold one network, and those by which they only have a common origin.
SAME_NETWORK = ("same file", "same bytes", "same weights", "transposed", "part of", "quantised")
COMMON_ORIGIN = ("fine-tuned", "shares weights")
# Two networks are kin if at least this share of the smaller one's matrices, and of their values, is. A fixed Fourier basis or
# table of positions, which strangers share, is not enough.
KIN = 0.5


@dataclass(frozen=True)
class Shared:
    """A matrix of a file and its partner in another: their names, and how they differ."""

    name: str
    name_to: str
    constant: bool
    transposed: bool
    difference: Difference


@dataclass(frozen=True)
class Relation:
    """How a network is related to another one.

    Attributes:
        kind: One of ``SAME_NETWORK`` or ``COMMON_ORIGIN``, or ``same shapes``, or empty if they have nothing in common.
        evidence: The numbers behind it, for people.
        shared: The matrices that both have.
    """

    kind: str
    evidence: str
    shared: list[Shared] = field(default_factory=list)


def estimate(a: Network, b: Network) -> tuple[bool, float]:
    """Return whether the samples of two networks look like kin, and how far A is from B: 0 for equal, up to 1.41."""
    pairs = match(a, b)
    close = [pair for pair in pairs if pair.distance < RELATED and not pair.constant]
    sizes = [math.prod(layer.shape) for layer in a.layers]
    apart = {pair.a: min(pair.distance, INDEPENDENT) for pair in pairs}
    distance = sum(size * apart.get(number, INDEPENDENT) for number, size in enumerate(sizes)) / sum(sizes)
    return _are_kin(a, b, pairs, [pair.a for pair in close]), distance


def _are_kin(a: Network, b: Network, pairs: Sequence[Pair], close: Sequence[int]) -> bool:
    """Return whether the close matrices, by position in A, are half of the smaller network, by count and by values."""
    constant = {pair.a for pair in pairs if pair.constant}
    count = min(len(a.layers), len(b.layers)) - len(constant)
    values = min(a.values, b.values) - sum(math.prod(a.layers[number].shape) for number in constant)
    found = sum(math.prod(a.layers[number].shape) for number in close)
    return bool(close) and len(close) >= KIN * count and found >= KIN * values


def relate(a: Network, b: Network, name_of_b: str) -> Relation:
    """Read the matrices that two networks share, pair by pair, and return how A is related to B."""
    pairs = match(a, b)
    shared, kin = [], []
    for pair in pairs:
        first, second = a.layers[pair.a], b.layers[pair.b]
        try:
            found = difference(first.load(), second.load(), pair.axes, (first.dtype, second.dtype))
        except (ValueError, OSError, MemoryError) as err:
            a.unread[first.name] = str(err) or "out of memory"
            continue
        transposed = pair.axes != tuple(range(len(pair.axes)))
        shared.append(Shared(first.name, second.name, pair.constant, transposed, found))
        if found.kind != "unrelated" and not pair.constant:
            kin.append(pair.a)
    kind = _kind(a, b, shared, _are_kin(a, b, pairs, kin))
    said = [_evidence(a, b, shared, name_of_b)] if shared else []
    if kind in ("same weights", "transposed", "part of"):
        differing, common = _vectors(a.vectors, b.vectors)
        if differing:
            kind = "fine-tuned"
            said.append(f"{differing} of {common} vectors of one name differ")
        elif common:
            said.append(f"{common} of {common} vectors equal")
    return Relation(kind, "; ".join(said), shared)


def _kind(a: Network, b: Network, shared: Sequence[Shared], kin: bool) -> str:
    """Return the relation that the shared matrices make."""
    kinds = {item.difference.kind for item in shared}
    everything = len(shared) == len(a.layers)
    if not kin:
        return "same shapes" if shared and everything and len(shared) == len(b.layers) else ""
    if kinds <= set(SAME):
        if not everything:
            return "shares weights"
        if len(b.layers) > len(shared):
            return "part of"
        return "transposed" if any(item.transposed for item in shared) else "same weights"
    if kinds <= {*SAME, "quantised"}:
        return "quantised"
    return "fine-tuned" if "changed" in kinds else "shares weights"


def _evidence(a: Network, b: Network, shared: Sequence[Shared], name_of_b: str) -> str:
    """Return the numbers behind a relation as a text."""
    parts = []
    for kind, text in (
        ("equal", lambda items: "equal bit for bit"),
        ("rounded", _rounded),
        ("quantised", _quantised),
        ("changed", _changed),
        ("unrelated", _unrelated),
    ):
        items = [item for item in shared if item.difference.kind == kind]
        if items:
            parts.append(f"{len(items)} of {len(a.layers)} matrices {text(items)}")
    if transposed := sum(item.transposed for item in shared if item.difference.kind != "unrelated"):
        parts.append(f"{transposed} of them stored transposed")
    if alone := len(a.layers) - len(shared):
        parts.append(f"{alone} without a partner")
    if more := len(b.layers) - len(shared):
        parts.append(f"{more} more in {name_of_b}")
    return "; ".join(parts)


def _rounded(items: Sequence[Shared]) -> str:
    types = " and ".join(sorted({item.difference.rounding for item in items}))
    return f"equal within {types} rounding, largest difference {max(i.difference.largest for i in items):.2g}"


def _quantised(items: Sequence[Shared]) -> str:
    order = max(item.difference.reversed for item in items)
    said = f"at most {percent(order)} % of neighbouring values" if order else "no neighbouring values"
    return f"differ as quantisation makes them, by {_changes(items)}, with {said} in another order"


def _changed(items: Sequence[Shared]) -> str:
    most = max(items, key=lambda item: item.difference.relative_change)
    least = min(item.difference.correlation for item in items)
    where = f", most in {most.name}" if len(items) > 1 else ""
    return f"changed by {_changes(items)}{where}, correlation at least {math.floor(1000 * least) / 1000:g}"


def _unrelated(items: Sequence[Shared]) -> str:
    most = max((abs(i.difference.correlation) for i in items if not math.isnan(i.difference.correlation)), default=0.0)
    return f"unrelated, correlation at most {most:.2g}"


def _changes(items: Sequence[Shared]) -> str:
    """Return the relative changes of some matrices: all of them together, and the least and the most."""
    changes = sorted(item.difference.relative_change for item in items)
    least, middle, most = (f"{changes[place]:.2g}" for place in (0, len(changes) // 2, -1))
    return middle if least == most else f"{middle} in the median ({least} to {most})"


def _vectors(a: Sequence[StoredTensor], b: Sequence[StoredTensor]) -> tuple[int, int]:
    """Return how many vectors of one name and length differ by more than rounding, and how many there are."""
    by_name = {stored.key: stored for stored in b}
    differing = common = 0
    for stored in a:
        other = by_name.get(stored.key)
        if other is None or other.shape != stored.shape or stored.quantised or other.quantised:
            continue
        try:
            a_values, b_values = (LoadPart(item.read, Part(item.shape))() for item in (stored, other))
            found = difference(a_values, b_values, (0,), (stored.dtype, other.dtype))
        except (ValueError, OSError, MemoryError):
            continue
        common += 1
        differing += found.kind not in SAME
    return differing, common
