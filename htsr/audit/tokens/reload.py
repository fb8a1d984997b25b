"""The weights of a source of files, to be loaded again by a result that keeps none."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from htsr.audit.files_read import Stamp, changed_since, stamps
from htsr.errors import InputError
from htsr.weights import Inventory, Layer
from htsr.weights.readers.hub import is_hub_address
from htsr.weights.readers.remote import is_url
from htsr.weights.source import is_path

IN_MEMORY = (
    "the source was no path, and a result keeps no weights of a model in memory: save the model and its tokenizer into a "
    "directory, and analyse that"
)


@dataclass(frozen=True)
class Reload:
    """Where the weights of a source can be loaded again.

    Attributes:
        inventory: All layers of the source, also those that were not asked for.
        stamps: The files that hold the weights, each with what changes when it is written.
    """

    inventory: Inventory
    stamps: Mapping[Path, Stamp]

    @property
    def source(self) -> str:
        """What was opened, in words."""
        return self.inventory.source

    @property
    def folders(self) -> list[Path]:
        """The folders of the files."""
        return sorted({path.parent for path in self.stamps})

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers by name."""
        return {layer.name: layer for layer in self.inventory.layers}

    def load(self, name: str) -> torch.Tensor:
        """Return the weight of a layer; raise ``InputError`` if a file changed or the weight cannot be used."""
        self.check_unchanged()
        try:
            weight = self.layers[name].load()
        except (ValueError, OSError, RuntimeError, MemoryError) as err:
            raise InputError(f"{self.source}: {name}: {' '.join(str(err).split())}") from err
        if not torch.isfinite(weight.float()).all():
            raise InputError(f"{self.source}: {name}: expected finite weights, got NaN or infinity")
        return weight

    def check_unchanged(self) -> None:
        """Raise ``InputError`` if a file is no longer what was analysed, as far as size, times and place tell."""
        for path in changed_since(self.stamps):
            what = "changed" if path.exists() else "is gone"
            raise InputError(f"{path}: the file {what} since the analysis; analyse it again to name its directions")


def reload_of(inventory: Inventory, source: object) -> Reload | str:
    """Return where the weights of a source can be loaded again, or why they cannot."""
    if isinstance(source, list | tuple) and source and all(map(is_path, source)):
        return "the source was a list of paths: analyse the directory of one model"
    if not is_path(source):
        return IN_MEMORY
    if is_url(source) and not is_hub_address(source):
        return "the source was a URL, of which no copy is kept: download the directory of the model, and analyse that"
    if inventory.state:
        return f"the source was the optimizer's {inventory.state}, which has no output embedding: analyse the weights"
    return Reload(inventory, stamps(inventory))
