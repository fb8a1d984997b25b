"""Which layers WeightWatcher would analyse: its limits, its ids, and the filters that it takes in ``layers=``."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral

from torch import nn

from htsr.audit.table import shortened
from htsr.errors import InputError
from htsr.weights import Inventory, Layer
from htsr.weights.source import Source

# The types of layers that WeightWatcher takes in layers=.
LAYER_TYPES = ("dense", "embedding", "conv1d", "conv2d")

Filters = int | str | Iterable[int | str]


def layer_ids(source: Source, inventory: Inventory, start_ids: int) -> dict[str, int]:
    """Return WeightWatcher's id of each layer by name.

    That is the place of a module in its model, of a weight in its state dict, and of a name among the sorted names of a file.
    The ids of a module or file start at ``start_ids``, those of a state dict at 1 or above. Layers that WeightWatcher does not
    know, such as the parts of a fused weight, get numbers after the last of its own. A module that appears in the model twice
    has an id for its first name only.
    """
    if isinstance(source, nn.Module):
        places = {path: number for number, (path, _) in enumerate(source.named_modules(), start_ids)}
        every_path = {path for path, _ in source.named_modules(remove_duplicate=False)}
    else:
        keys = [key for key in source if key.endswith(".weight")] if isinstance(source, Mapping) else []
        names = [key.removesuffix(".weight") for key in keys] or _sorted_weights(inventory)
        first = max(start_ids, 1) if isinstance(source, Mapping) else start_ids
        places = {name: number for number, name in enumerate(names, first)}
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


def _sorted_weights(inventory: Inventory) -> list[str]:
    """Return the names of all weights of a file, also of those that are no matrices, which WeightWatcher counts, too."""
    others = (item.name.removesuffix(".weight") for item in inventory.skipped if item.name.endswith(".weight"))
    return sorted({*(layer.longname for layer in inventory.layers), *others})


def check_filters(wanted: list[int | str], inventory: Inventory, ids: Mapping[str, int]) -> None:
    """Raise an error if a filter matches nothing, so that a typing error does not look like an empty model.

    Raises:
        TypeError: If a filter is neither an id nor a name.
        InputError: If a filter matches no layer.
    """
    for item in wanted:
        if not isinstance(item, str | Integral):
            raise TypeError(f"expected ids, names or types of layers in layers=, got {item!r}")
        if not any(_matches(layer, ids.get(layer.name), item) for layer in inventory.layers):
            names = [layer.longname for layer in inventory.layers]
            near = get_close_matches(str(item).removeprefix("-"), names, n=3, cutoff=0.4) or names[:3]
            raise InputError(
                f"layers={item!r} matches none of the {len(names)} layers of {inventory.source}: expected an id "
                f"({shortened(sorted(ids.values()))}), a type ({', '.join(LAYER_TYPES)}) or a name such as {', '.join(near)}"
            )


def is_selected(layer: Layer, layer_id: int, wanted: list[int | str]) -> bool:
    """Return whether ``layers=`` selects a layer: no negative filter matches it, and a positive one does if there are any."""
    negative = [item for item in wanted if _is_negative(item)]
    positive = [item for item in wanted if not _is_negative(item)]
    if any(_matches(layer, layer_id, item) for item in negative):
        return False
    return not positive or any(_matches(layer, layer_id, item) for item in positive)


def _is_negative(item: int | str) -> bool:
    """Return whether a filter leaves layers out."""
    return item.startswith("-") if isinstance(item, str) else item < 0


def _matches(layer: Layer, layer_id: int | None, item: int | str) -> bool:
    """Return whether a filter, its sign aside, names the layer by id, type or name."""
    if not isinstance(item, str):
        return abs(item) == layer_id
    name = item.removeprefix("-")
    return name in (layer.layer_type, layer.name, layer.longname, layer.longname.rpartition(".")[2])
