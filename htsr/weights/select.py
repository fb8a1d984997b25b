"""Choose layers by name, glob, regular expression, layer type, shape or number of eigenvalues."""

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
        inventory: What the source holds.
        layers: Names; globs (``"encoder.*.query"``, ``"*[q]"``); regular expressions, compiled or as ``"re:..."``, searched
            in the name; layer types (``"conv2d"``); shapes (``"384x1536"``, ``"*x384"``). None keeps all.
        skip: The same, for layers to leave out. It wins over ``layers``.
        min_eigenvalues: Leave out layers with fewer eigenvalues.

    Returns:
        The inventory with every deselected layer moved to ``skipped``, with the reason.

    Raises:
        InputError: If a pattern matches no layer, or is no regular expression. A typing error must not read as "nothing
            wrong here".
        TypeError: If the patterns are neither text nor regular expressions nor several of them.

    Notes:
        The brackets in the names of parts are literal where that makes the glob match a layer; else ``[0-3]`` is a class of
        characters, as in fnmatch.
    """
    wanted, unwanted = _patterns(layers, inventory), _patterns(skip, inventory)

    kept, dropped = [], []
    for layer in inventory.layers:
        by_skip = next((pattern for pattern, matches in unwanted or () if matches(layer)), None)
        if by_skip is not None:
            dropped.append(Skipped(layer.name, layer.shape, f"left out by skip={by_skip!r}"))
        elif wanted is not None and not any(matches(layer) for _, matches in wanted):
            dropped.append(Skipped(layer.name, layer.shape, "not among layers="))
        elif layer.num_evals < min_eigenvalues:
            reason = f"{layer.num_evals} eigenvalues, fewer than min_eigenvalues={min_eigenvalues}"
            dropped.append(Skipped(layer.name, layer.shape, reason))
        else:
            kept.append(layer)
    # a weight whose first owner was left out belongs to the next one
    owner_of: dict[str, str] = {}
    for number, layer in enumerate(kept):
        owner = owner_of.setdefault(layer.tied_to or layer.name, layer.name)
        kept[number] = replace(layer, tied_to=None if owner == layer.name else owner)
    return Inventory(inventory.source, kept, inventory.skipped + dropped)


Matcher = Callable[[Layer], bool]


def _patterns(given: Patterns, inventory: Inventory) -> list[tuple[Pattern, Matcher]] | None:
    if given is None:
        return None
    if not isinstance(given, Iterable | re.Pattern):
        raise TypeError(f"expected names, globs, regular expressions, layer types or shapes, got {given!r}")
    patterns = [given] if isinstance(given, str | re.Pattern) else list(given)
    found = []
    for pattern in patterns:
        if not isinstance(pattern, str | re.Pattern):
            raise TypeError(f"expected text or a regular expression in layers= and skip=, got {pattern!r}")
        matches = next((m for m in _readings(pattern) if any(map(m, inventory.layers))), None)
        if matches is None:
            raise InputError(_no_match(pattern, inventory))
        found.append((pattern, matches))
    return found


def _readings(pattern: Pattern) -> list[Matcher]:
    """What a pattern can mean, the most literal first; the first that matches any layer is taken."""
    if isinstance(pattern, str) and pattern.startswith("re:"):
        try:
            pattern = re.compile(pattern.removeprefix("re:"))
        except re.error as err:
            raise InputError(
                f"{pattern!r}: expected a regular expression after re:, got an error in it: {err}"
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
    return len(sides) == len(layer.shape) and all(
        side in ("*", str(actual)) for side, actual in zip(sides, layer.shape, strict=True)
    )


def _no_match(pattern: Pattern, inventory: Inventory) -> str:
    names = [layer.name for layer in inventory.layers]
    near = get_close_matches(str(pattern), names, n=3, cutoff=0.4) or names[:3]
    types = sorted({layer.layer_type for layer in inventory.layers})
    return (
        f"{pattern!r} matches none of the {len(names)} layers of {inventory.source}: expected a name, a glob, re: and a regular "
        f"expression, a shape such as 64x128, or a layer type ({', '.join(types) or 'none here'}); names look like "
        f"{', '.join(near) or '(none)'}"
    )
