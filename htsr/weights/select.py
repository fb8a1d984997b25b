"""Select layers by name, glob, regular expression, layer type, shape or number of eigenvalues."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase, translate

from htsr.errors import InputError
from htsr.weights.inventory import Inventory, Layer, Skipped

Pattern = str | re.Pattern[str]
Patterns = Pattern | Iterable[Pattern] | None

SHAPE = re.compile(r"(\d+|\*)(x(\d+|\*))+")


def select(
    inventory: Inventory, layers: Patterns = None, skip: Patterns = None, *, min_eigenvalues: int = 0
) -> Inventory:
    """Keep the layers that ``layers`` matches and ``skip`` does not.

    Args:
        inventory: The layers and skipped tensors of a source.
        layers: Patterns of layers to keep, one or several: names; globs (``"encoder.*.query"``, ``"*[q]"``); regular
            expressions, compiled or as ``"re:..."``, searched in the name; layer types (``"conv2d"``); shapes (``"384x1536"``,
            ``"*x384"``). None keeps all layers.
        skip: Patterns of layers to leave out. ``skip`` wins over ``layers``.
        min_eigenvalues: Leave out layers with fewer eigenvalues than this.

    Returns:
        The inventory with every deselected layer moved to ``skipped``, with the reason.

    Raises:
        InputError: If a pattern matches no layer or is not a valid regular expression. A typing error in a pattern must not
            look like a result without findings.
        TypeError: If a pattern is neither a string nor a compiled regular expression.

    Notes:
        In a glob, brackets are literal if that makes it match the name of a part, ``[q]``. Otherwise ``[0-3]`` is a class of
        characters, as in ``fnmatch``.
    """
    wanted, unwanted = _patterns(layers, inventory), _patterns(skip, inventory)

    kept, dropped = [], []
    for layer in inventory.layers:
        by_skip = next((pattern for pattern, matches in unwanted or () if matches(layer)), None)
        if by_skip is not None:
            dropped.append((layer, f"left out by skip={by_skip!r}"))
        elif wanted is not None and not any(matches(layer) for _, matches in wanted):
            dropped.append((layer, "not selected by layers="))
        elif layer.num_evals < min_eigenvalues:
            reason = f"{layer.num_evals} eigenvalues, fewer than min_eigenvalues={min_eigenvalues}"
            dropped.append((layer, reason))
        else:
            kept.append(layer)
    shared_by = {layer.name: layer.tied_to or layer.name for layer in inventory.layers}
    # If the first layer of a shared weight was left out, the next layer that shares it takes its place.
    owner_of: dict[str, str] = {}
    for number, layer in enumerate(kept):
        owner = owner_of.setdefault(layer.tied_to or layer.name, layer.name)
        kept[number] = replace(layer, tied_to=None if owner == layer.name else owner)
    # and its parameters count for the first layer that is kept
    left = {layer.name: layer.num_params for layer in inventory.layers}
    kept = [replace(layer, num_params=left.pop(shared_by[layer.name], 0)) for layer in kept]
    skipped = [
        Skipped(layer.name, layer.shape, reason, left.pop(shared_by[layer.name], 0)) for layer, reason in dropped
    ]
    return replace(inventory, layers=kept, skipped=inventory.skipped + skipped)


Matcher = Callable[[Layer], bool]


def _patterns(given: Patterns, inventory: Inventory) -> list[tuple[Pattern, Matcher]] | None:
    """Return each pattern with the function that tells whether it matches a layer; None if no pattern is given."""
    if given is None:
        return None
    if not isinstance(given, Iterable | re.Pattern):
        raise TypeError(f"expected a pattern or an iterable of patterns in layers= and skip=, got {given!r}")
    patterns = [given] if isinstance(given, str | re.Pattern) else list(given)
    found = []
    for pattern in patterns:
        if not isinstance(pattern, str | re.Pattern):
            raise TypeError(f"expected a string or a compiled regular expression in layers= and skip=, got {pattern!r}")
        matches = next((m for m in _readings(pattern) if any(map(m, inventory.layers))), None)
        if matches is None:
            raise InputError(_no_match(pattern, inventory))
        found.append((pattern, matches))
    return found


def _readings(pattern: Pattern) -> list[Matcher]:
    """Return the possible meanings of a pattern, the most literal first; the first that matches any layer is used."""
    if isinstance(pattern, str) and pattern.startswith("re:"):
        try:
            pattern = re.compile(pattern.removeprefix("re:"))
        except re.error as err:
            raise InputError(
                f"{pattern!r}: expected a regular expression after re:, but Python cannot compile it: {err}"
            ) from err
    if isinstance(pattern, re.Pattern):
        expression = pattern
        return [lambda layer: bool(expression.search(layer.name) or expression.search(layer.longname))]
    literal = re.compile(translate(pattern.replace("[", "[[]")))
    readings: list[Matcher] = [
        lambda layer: pattern in (layer.name, layer.longname),
        lambda layer: layer.layer_type == pattern,
        lambda layer: bool(literal.match(layer.name) or literal.match(layer.longname)),
        lambda layer: fnmatchcase(layer.name, pattern) or fnmatchcase(layer.longname, pattern),
    ]
    shape = pattern.replace(" ", "")
    if SHAPE.fullmatch(shape):
        readings.append(lambda layer: _has_shape(layer, shape.split("x")))
    return readings


def _has_shape(layer: Layer, sides: list[str]) -> bool:
    """Return whether a layer has these sides, where ``*`` stands for any."""
    return len(sides) == len(layer.shape) and all(
        side in ("*", str(actual)) for side, actual in zip(sides, layer.shape, strict=True)
    )


def _no_match(pattern: Pattern, inventory: Inventory) -> str:
    """Return the message for a pattern that matches no layer, with the names that come closest."""
    names = [layer.name for layer in inventory.layers]
    near = get_close_matches(str(pattern), names, n=3, cutoff=0.4) or names[:3]
    types = sorted({layer.layer_type for layer in inventory.layers})
    return (
        f"{pattern!r} matches none of the {len(names)} layers of {inventory.source}: expected a name, a glob, re: followed by a "
        f"regular expression, a shape such as 64x128, or a layer type ({', '.join(types) or 'none here'}); names look like "
        f"{', '.join(near) or '(none)'}"
    )
