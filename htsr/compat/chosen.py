"""What methods of WeightWatcher start with: the model, its layers and ids, and the matrices that the options make of them."""

from collections.abc import Mapping
from numbers import Integral

import pandas as pd

from htsr.compat.arguments import Options
from htsr.compat.constants import MAX_EVALS, MAX_N, MIN_EVALS
from htsr.compat.layers import Filters, check_filters, is_selected, layer_ids
from htsr.compat.matrices import Matrix, matrices
from htsr.errors import InputError
from htsr.weights import Inventory, open_source
from htsr.weights.source import Source

# Smallest and largest number of eigenvalues, and the largest side of a layer, that WeightWatcher analyses.
Limits = tuple[int, int, int]
LIMITS: Limits = (MIN_EVALS, MAX_EVALS, MAX_N)
NO_LIMITS: Limits = (0, 0, 0)
DEFAULTS = Options()


class ChosenLayers:
    """The model, the base model and the table of what the last call left out."""

    def __init__(self, model: Source | None, base_model: Source | None) -> None:
        self.model, self.base_model = model, base_model
        self.skipped = pd.DataFrame(columns=["name", "shape", "reason"], dtype="str")

    def _model(self, model: Source | None, base_model: Source | None = None) -> Source:
        """Return the model of a call, which later calls then use by default, as they do the base model."""
        if model is not None:
            self.model = model
        if base_model is not None:
            self.base_model = base_model
        if self.model is None:
            raise TypeError("expected a model, here or in the constructor, got None")
        return unwrapped(self.model)

    def _chosen(
        self,
        source: Source,
        layers: Filters,
        limits: Limits = LIMITS,
        start_ids: int = 0,
        options: Options = DEFAULTS,
    ) -> tuple[Inventory, dict[str, int]]:
        """Return the layers that pass the filters and the id of every layer; list the others in ``skipped``."""
        min_evals, max_evals, max_N = limits
        inventory = open_source(source, convention="weightwatcher")
        ids = layer_ids(source, inventory, start_ids)
        wanted: list[int | str] = [layers] if isinstance(layers, str | int | Integral) else list(layers)
        check_filters(wanted, inventory, ids)
        kept, skipped = [], [(item.name, " x ".join(map(str, item.shape)), item.reason) for item in inventory.skipped]
        for layer in inventory.layers:
            num_evals = layer.num_evals if options.pool else layer.M
            if layer.name not in ids:
                why = "the same module under a second name"
            elif not is_selected(layer, ids[layer.name], wanted):
                why = f"left out by layers={layers!r}"
            elif num_evals < min_evals:
                why = f"{num_evals} eigenvalues, fewer than min_evals={min_evals}"
            elif max_evals and num_evals > max_evals:
                why = f"{num_evals} eigenvalues, more than max_evals={max_evals}"
            elif max_N and max_N < layer.N:
                why = f"a side of {layer.N}, more than max_N={max_N}"
            else:
                kept.append(layer)
                continue
            skipped.append((layer.name, " x ".join(map(str, layer.shape)), why))
        self._skip(skipped, anew=True)
        if not kept:
            raise InputError(f"no layer of {inventory.source} is left to analyse: {self._reasons()}")
        return Inventory(inventory.source, kept, inventory.skipped, metadata=inventory.metadata), ids

    def _matrices(self, chosen: Inventory, ids: dict[str, int], options: Options, seed: int = 0) -> list[Matrix]:
        """Return the matrices that the options and the base model make of the chosen layers."""
        base = None
        if self.base_model is not None:
            base = open_source(unwrapped(self.base_model), convention="weightwatcher")
        made, skipped = matrices(chosen, ids, options, base, seed)
        self._skip([(item.name, " x ".join(map(str, item.shape)), item.reason) for item in skipped])
        if not made:
            raise InputError(f"no layer of {chosen.source} is left to analyse: {self._reasons()}")
        return made

    def _skip(self, rows: list[tuple[str, str, str]], *, anew: bool = False) -> None:
        """List layers as skipped, beside those of the same call."""
        table = pd.DataFrame(rows, columns=list(self.skipped), dtype="str")
        self.skipped = table if anew else pd.concat([self.skipped, table], ignore_index=True)

    def _reasons(self) -> str:
        """Return how many layers are skipped for each reason."""
        return "; ".join(f"{count} x {why}" for why, count in self.skipped["reason"].value_counts().items())


def unwrapped(model: Source) -> Source:
    """Return the state dict inside ``{"state_dict": ...}``, or the model itself."""
    inner = model.get("state_dict") if isinstance(model, Mapping) else None
    return inner if isinstance(inner, Mapping) else model
