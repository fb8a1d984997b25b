"""The directions of changes, and of the two weights beside each."""

from dataclasses import replace

from htsr.audit.tokens import OF_CHANGE, Directions, Reload, Sources, with_directions
from htsr.comparison.layer import LayerComparison


def of_changes(
    results: dict[str, LayerComparison], a: Reload | str, b: Reload | str, tokens: int, progress: bool | None
) -> dict[str, LayerComparison]:
    """Return comparisons of layers that know the directions of the change, ``tokens`` of them named, and of A and B."""
    of_a, of_b = Directions(Sources(a)), Directions(Sources(b))
    known = {
        name: replace(
            result,
            a=replace(result.a, _directions=of_a),
            b=replace(result.b, _directions=of_b),
            delta=replace(result.delta, _directions=Directions(OF_CHANGE)),
        )
        for name, result in results.items()
    }
    return with_directions(known, Sources(a, b), tokens, progress)
