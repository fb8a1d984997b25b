"""Which layers WeightWatcher would take: its ids, and its way of naming layers in ``layers=``."""

import glob
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral

from torch import nn

from htsr.audit.table import shortened
from htsr.errors import InputError
from htsr.weights import Inventory, Layer
from htsr.weights.source import Source

# WeightWatcher's words for kinds of layers, usable in layers=.
LAYER_TYPES = ("dense", "embedding", "conv1d", "conv2d")

Filters = int | str | Iterable[int | str]


def layer_ids(source: Source, inventory: Inventory, start_ids: int) -> dict[str, int]:
    """WeightWatcher's ids: the place of a module in the model, the place of a weight in a state dict.

    Args:
        source: The model.
        inventory: Its layers.
        start_ids: Where the ids of a module start; those of a state dict start at 1 or above.

    Returns:
        Id of each layer by name. What WeightWatcher does not know of, parts of a fused weight for instance, is numbered
        after the last of its own. The second name of a module that stands in the model twice has no id.
    """
    if isinstance(source, nn.Module):
        places = {path: number for number, (path, _) in enumerate(source.named_modules(), start_ids)}
        every_path = {path for path, _ in source.named_modules(remove_duplicate=False)}
    else:
        keys = [key for key in source if key.endswith(".weight")] if isinstance(source, Mapping) else []
        names = [key.removesuffix(".weight") for key in keys] or [layer.longname for layer in inventory.layers]
        places = {name: number for number, name in enumerate(names, max(start_ids, 1))}
        every_path = set(places)
    ids: dict[str, int] = {}
    following = max(places.values(), default=0) + 1
    for layer in inventory.layers:
        if layer.longname in places:
            ids[layer.name] = places[layer.longname]
        elif layer.longname not in every_path:
            ids[layer.name] = following
            following += 1
    return ids


def check_filters(wanted: list[int | str], inventory: Inventory, ids: Mapping[str, int]) -> None:
    """Refuse a filter that matches nothing: a typing error must not read as an empty model.

    Args:
        wanted: Ids, names and types.
        inventory: All layers.
        ids: Their ids.

    Raises:
        InputError: If a filter matches nothing, or is neither an id nor a name.
    """
    for item in wanted:
        if not isinstance(item, str | Integral):
            raise InputError(f"expected ids, names or types of layers in layers=, got {item!r}")
        if not any(_matches(layer, ids.get(layer.name), item) for layer in inventory.layers):
            names = [layer.longname for layer in inventory.layers]
            near = get_close_matches(str(item).removeprefix("-"), names, n=3, cutoff=0.4) or names[:3]
            raise InputError(
                f"layers={item!r} matches none of the {len(names)} layers of {inventory.source}: expected an id "
                f"({shortened(sorted(ids.values()))}), a type ({', '.join(LAYER_TYPES)}) or a name such as {', '.join(near)}"
            )


def passes(layer: Layer, layer_id: int, wanted: list[int | str]) -> bool:
    """Whether a layer is among those that ``layers=`` asks for.

    Args:
        layer: The layer.
        layer_id: Its id.
        wanted: Ids, names and types; negative ones are left out.

    Returns:
        True if it is; also if nothing is asked for.
    """
    negative = [item for item in wanted if _is_negative(item)]
    positive = [item for item in wanted if not _is_negative(item)]
    if any(_matches(layer, layer_id, item) for item in negative):
        return False
    return not positive or any(_matches(layer, layer_id, item) for item in positive)


def _is_negative(item: int | str) -> bool:
    return item.startswith("-") if isinstance(item, str) else item < 0


def _matches(layer: Layer, layer_id: int | None, item: int | str) -> bool:
    if not isinstance(item, str):
        return abs(item) == layer_id
    name = item.removeprefix("-")
    return name in (layer.layer_type, layer.name, layer.longname, layer.longname.rpartition(".")[2])


def exactly(name: str) -> str:
    """A glob that matches this name alone, and is no layer type even where the name is one.

    Args:
        name: The name.

    Returns:
        The glob.
    """
    return f"[{name[0]}]{glob.escape(name[1:])}" if name[:1].isalnum() else glob.escape(name)
