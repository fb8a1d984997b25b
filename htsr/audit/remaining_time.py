"""How long an audit will still take, from what its layers took so far."""

from collections import Counter
from collections.abc import Iterable

from htsr.weights import Layer

# The seconds of a layer are proportional to this much for any layer, this much for each entry, and ``Layer.cost``: 4 ms, 11 ns
# an entry and 1 s for a cost of 3.5e10 (one thread of a Xeon, sides from 64 to 16384, within 40 %).
COST_OF_A_LAYER, COST_OF_AN_ENTRY = 1.4e8, 400
# Layers that arrive this much faster than the first of their shape were analysed together with it.
TOGETHER = 0.1
# The cost of a shape counts as so many of its layers: with several workers the first ones arrive irregularly.
COUNT_OF_COST = 4

Shape = tuple[int, int, int]


class RemainingTime:
    """An estimate of the seconds until the last layer is done.

    A layer counts as much as those of its shape took so far, whatever the machine and the options; its cost counts as four layers
    more, and alone where the shape is new. The first layers of a shape, which may have waited for its noise to be drawn, count
    until others follow.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._waiting: Counter[Shape] = Counter()
        self._costs: dict[Shape, float] = {}
        for layer in layers:
            shape = _shape(layer)
            self._waiting[shape] += 1
            self._costs[shape] = expected_cost(layer)
        self._first: dict[Shape, tuple[int, float]] = {}
        self._later: dict[Shape, tuple[int, float]] = {}
        self._last = 0.0

    def done(self, layer: Layer, elapsed: float) -> None:
        """Note that a layer was done so many seconds after the start."""
        shape, took = _shape(layer), elapsed - self._last
        self._waiting[shape] -= 1
        self._last = elapsed
        count, seconds = self._first.get(shape, (0, 0.0))
        if not count or (shape not in self._later and took < TOGETHER * seconds / count):
            self._first[shape] = count + 1, seconds + took
        else:
            count, seconds = self._later.get(shape, (0, 0.0))
            self._later[shape] = count + 1, seconds + took

    def seconds(self) -> float:
        """Return the estimate, once a layer is done."""
        found = self._first | self._later
        typical = self._later or self._first
        cost = sum(count * self._costs[shape] for shape, (count, _) in typical.items())
        pace = sum(seconds for _, seconds in typical.values()) / cost
        total = 0.0
        for shape, waiting in self._waiting.items():
            count, seconds = found.get(shape, (0, 0.0))
            total += waiting * (seconds + COUNT_OF_COST * pace * self._costs[shape]) / (count + COUNT_OF_COST)
        return total


def expected_cost(layer: Layer) -> float:
    """Return what an analysis of a layer costs, up to a factor that depends on the machine and the options."""
    return COST_OF_A_LAYER + COST_OF_AN_ENTRY * layer.N * layer.M * layer.rf + layer.cost


def _shape(layer: Layer) -> Shape:
    return layer.N, layer.M, layer.rf
