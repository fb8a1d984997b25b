"""Choose layers by name, glob or layer type."""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from htsr.errors import InputError
from htsr.weights.inventory import Inventory, Layer, Skipped

Patterns = str | Iterable[str] | None


def select(inventory: Inventory, layers: Patterns = None, skip: Patterns = None) -> Inventory:
    """Keep the layers that ``layers`` matches and ``skip`` does not.

    Args:
        inventory: What the source holds.
        layers: Names, globs (``"encoder.*.query"``) or layer types (``"conv2d"``). None keeps all.
        skip: The same, for layers to leave out. It wins over ``layers``.

    Returns:
        The inventory with every deselected layer moved to ``skipped``, with the reason.

    Raises:
        InputError: If a pattern matches no layer. A typing error must not read as "nothing wrong here".
        TypeError: If the patterns are neither text nor several texts.
    """
    wanted, unwanted = _patterns(layers), _patterns(skip)
    for pattern in (*(wanted or ()), *(unwanted or ())):
        if not any(_matches(layer, pattern) for layer in inventory.layers):
            raise InputError(_no_match(pattern, inventory))

    kept, dropped = [], []
    for layer in inventory.layers:
        by_skip = next((p for p in unwanted or () if _matches(layer, p)), None)
        if by_skip is not None:
            dropped.append(Skipped(layer.name, layer.shape, f"left out by skip={by_skip!r}"))
        elif wanted is not None and not any(_matches(layer, p) for p in wanted):
            dropped.append(Skipped(layer.name, layer.shape, "not among layers="))
        else:
            kept.append(layer)
    # a weight whose first owner was left out belongs to the next one
    owner_of: dict[str, str] = {}
    for number, layer in enumerate(kept):
        owner = owner_of.setdefault(layer.tied_to or layer.name, layer.name)
        kept[number] = replace(layer, tied_to=None if owner == layer.name else owner)
    return Inventory(inventory.source, kept, inventory.skipped + dropped)


def _patterns(given: Patterns) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, Iterable):
        raise TypeError(f"expected names, globs or layer types for layers= and skip=, got {given!r}")
    return (given,) if isinstance(given, str) else tuple(given)


def _matches(layer: Layer, pattern: str) -> bool:
    return pattern == layer.layer_type or fnmatchcase(layer.name, pattern) or fnmatchcase(layer.longname, pattern)


def _no_match(pattern: str, inventory: Inventory) -> str:
    names = [layer.name for layer in inventory.layers]
    near = get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
    types = sorted({layer.layer_type for layer in inventory.layers})
    return (
        f"{pattern!r} matches none of the {len(names)} layers of {inventory.source}: expected a name, a glob or a "
        f"layer type ({', '.join(types) or 'none here'}); names look like {', '.join(near) or '(none)'}"
    )
