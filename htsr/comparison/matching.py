"""Find the partner of every layer of one source in another, by name and shape."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import pandas as pd

from htsr.audit.table import shape_text, shortened, text_frame
from htsr.errors import InputError
from htsr.weights import Inventory, Layer, open_source, select
from htsr.weights.select import Patterns
from htsr.weights.source import Source, is_adapter

# Columns of what only one of the sources has, or what is analysed in neither.
ONE_SIDED = ("name", "source", "shape", "reason")


def open_on(source: Source, base: Source, state: str | None) -> Inventory:
    """Open a source; the directory of an adapter is opened as the base with the adapter merged into it."""
    if state is not None:
        return open_source(source, state=state)
    return open_source(source, base=base) if is_adapter(source) else open_source(source)


def only(inventory: Inventory, names: Collection[str]) -> Inventory:
    """Return these layers of an inventory, and nothing skipped."""
    return replace(inventory, layers=[layer for layer in inventory.layers if layer.name in names], skipped=[])


def select_alike(a: Inventory, b: Inventory, layers: Patterns, skip: Patterns) -> tuple[Inventory, Inventory]:
    """Filter both inventories alike, and refuse a pattern that matches in neither of them."""

    def known(patterns: Patterns, here: Inventory, there: Inventory) -> Patterns:
        """Return the patterns that match here; the others must match there."""
        if patterns is None:
            return None
        found = []
        for pattern in [patterns] if isinstance(patterns, str) or not isinstance(patterns, Iterable) else patterns:
            try:
                select(here, pattern)
            except InputError:
                select(there, pattern)
            else:
                found.append(pattern)
        return found

    return (
        select(a, known(layers, a, b), known(skip, a, b)),
        select(b, known(layers, b, a), known(skip, b, a)),
    )


def match(a: Inventory, b: Inventory) -> tuple[list[tuple[Layer, Layer]], pd.DataFrame]:
    """Return the pairs of layers with one name and shape, in the order of A, and the other layers with the reason."""
    of_a, of_b = ({layer.name: layer for layer in inventory.layers} for inventory in (a, b))
    pairs, unmatched = [], []
    for name in dict.fromkeys([*of_a, *of_b]):
        layer_a, layer_b = of_a.get(name), of_b.get(name)
        if layer_a and layer_b and layer_a.shape == layer_b.shape:
            pairs.append((layer_a, layer_b))
        elif layer_a and layer_b:
            shapes = [shape_text(layer.shape) for layer in (layer_a, layer_b)]
            unmatched.append((name, "both", " | ".join(shapes), f"{shapes[0]} in A, {shapes[1]} in B"))
        elif layer_a:
            unmatched.append((name, "A", shape_text(layer_a.shape), _why_alone(layer_a, "B", b, of_a)))
        elif layer_b:
            unmatched.append((name, "B", shape_text(layer_b.shape), _why_alone(layer_b, "A", a, of_b)))
    if not pairs:
        raise InputError(
            f"no layer of {a.source} has a partner of the same name and shape in {b.source}: expected two versions of one "
            f"model, got A: {shortened(list(of_a)) or 'no layer'}; B: {shortened(list(of_b)) or 'no layer'}"
        )
    return pairs, text_frame(unmatched, ONE_SIDED)


def _why_alone(layer: Layer, other: str, inventory: Inventory, own: dict[str, Layer]) -> str:
    """Return why a layer has no partner in the inventory of the other source."""
    for item in inventory.skipped:
        if item.name in (layer.name, layer.longname, f"{layer.name}.weight"):
            return f"not analysed in {other}: {item.reason}"
    for candidate in inventory.layers:
        shorter, longer = sorted((layer.name, candidate.name), key=len)
        if candidate.name not in own and candidate.shape == layer.shape and longer.endswith(f".{shorter}"):
            return f"no such name in {other}, which has {candidate.name} of the same shape"
    return f"no such name in {other}"


def skipped_on_sides(a: Inventory, b: Inventory) -> pd.DataFrame:
    """Return the tensors that are not analysed; one that both sources skip for one reason has one row."""
    sides: dict[tuple[str, str, str], list[str]] = {}
    for side, inventory in (("A", a), ("B", b)):
        for item in inventory.skipped:
            sides.setdefault((item.name, shape_text(item.shape), item.reason), []).append(side)
    rows = ((name, "both" if len(of) > 1 else of[0], shape, why) for (name, shape, why), of in sides.items())
    return text_frame(rows, ONE_SIDED)
