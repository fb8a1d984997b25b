"""WeightWatcher's interface to htsr's numbers, so that existing scripts run after one changed import.

``from htsr.compat import WeightWatcher`` replaces ``from weightwatcher import WeightWatcher``. The signatures, the column names
and the conventions are those of WeightWatcher 0.7.7: it scales Conv2d slices by sqrt(1/2) and leaves eigenvalues below 1e-5 out
of fits. The docstring of the class lists the differences.
"""

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from htsr.audit.analysis import Analysis, analyze
from htsr.audit.table import shortened
from htsr.bulk import shuffle
from htsr.compat.arguments import refuse_unsupported
from htsr.compat.distances import bias_distance, weight_distance
from htsr.compat.layers import (
    MAX_EVALS,
    MAX_N,
    MIN_EVALS,
    Filters,
    check_filters,
    glob_for_name,
    is_selected,
    layer_ids,
)
from htsr.compat.table import (
    DESCRIBED,
    SUMMARISED,
    WEAK_RANK_TOLERANCE,
    description_row,
    typed_table,
    weightwatcher_table,
)  # fmt: skip
from htsr.errors import InputError
from htsr.spectra.spectrum import esd
from htsr.weights import Inventory, open_source
from htsr.weights.source import Source


class WeightWatcher:
    """A replacement for ``weightwatcher.WeightWatcher``.

    Args:
        model: Anything that ``htsr.analyze`` takes; also ``{"state_dict": ...}``.
        framework: Ignored, as in WeightWatcher.
        base_model: Not supported; use ``htsr.compare``.
        log_level: Ignored, because nothing is logged.

    Raises:
        ValueError: If ``base_model`` is given.

    Notes:
        It differs from WeightWatcher 0.7.7 where htsr does better:

        - A failed fit is NaN, not -1; it has no warning, and the means of ``get_summary`` leave it out.
        - ``matrix_rank`` and ``rank_loss`` depend on the precision of the stored weights; ``sv_min`` of a convolution is its
          smallest singular value, not the largest of the smallest of each slice.
        - ``num_spikes``, ``mp_softrank``, ``sigma_mp`` and the bulk come from ``htsr.fit_marchenko_pastur``.
        - ``detX_num`` does not overflow; fits of fewer than 20 eigenvalues follow the same rule as all others; Conv1d is
          decomposed slice by slice.
        - ``randomize=True`` takes a seed; ``num_traps`` is a median over its shuffles, not a sum.
        - The tables include layers that WeightWatcher does not know. ``skipped`` lists what is left out, with the reason.
        - ``layers=`` matches full names as well as last components; it is an error if nothing matches.
    """

    def __init__(
        self, model: Source | None = None, framework: object = None, base_model: object = None, log_level: object = None
    ) -> None:
        refuse_unsupported({"base_model": base_model})
        self.model = model
        self.details: pd.DataFrame | None = None
        self.analysis: Analysis | None = None
        self.skipped = pd.DataFrame(columns=["name", "shape", "reason"], dtype="str")

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"htsr.compat.WeightWatcher has no {name!r}: it supports analyze, describe, get_details, get_summary, get_ESD "
            "and distances"
        )

    def describe(
        self,
        model: Source | None = None,
        layers: Filters = (),
        *,
        min_evals: int = MIN_EVALS,
        max_evals: int = MAX_EVALS,
        max_N: int = MAX_N,
        start_ids: int = 0,
        **others: object,
    ) -> pd.DataFrame:
        """List the layers that ``analyze`` would analyse: ids, names, types, shapes. No weight is loaded.

        Args:
            model: The model; by default that of the constructor.
            layers: Ids, names or types to keep; negative ids and names with a leading ``-`` are left out.
            min_evals: Leave out layers with fewer eigenvalues.
            max_evals: Leave out layers with more eigenvalues; 0 for no limit.
            max_N: Leave out layers with a larger side; 0 for no limit.
            start_ids: The id of a module's first layer.
            **others: WeightWatcher's other arguments, which must have their default values.

        Returns:
            One row for each layer.

        Raises:
            TypeError: If there is no model, an argument is unknown, or ``layers`` holds something else than ids and names.
            ValueError: If an argument has no counterpart in htsr.
            InputError: If no layer is selected.
        """
        refuse_unsupported(others)
        chosen, ids = self._chosen(self._model(model), layers, min_evals, max_evals, max_N, start_ids)
        rows = [description_row(layer, ids[layer.name], chosen) for layer in chosen.layers]
        return typed_table(rows, list(DESCRIBED))

    def analyze(
        self,
        model: Source | None = None,
        layers: Filters = (),
        *,
        min_evals: int = MIN_EVALS,
        max_evals: int = MAX_EVALS,
        max_N: int = MAX_N,
        plot: bool = False,
        savefig: str | bool = "ww-img",
        mp_fit: bool = False,
        randomize: bool = False,
        detX: bool = False,
        ERG: bool = False,
        tolerance: float = WEAK_RANK_TOLERANCE,
        start_ids: int = 0,
        seed: int = 0,
        **others: object,
    ) -> pd.DataFrame:
        """Analyse the model; the columns are WeightWatcher's.

        Args:
            model: The model; by default that of the constructor.
            layers: As in ``describe``.
            min_evals: As in ``describe``.
            max_evals: As in ``describe``.
            max_N: As in ``describe``.
            plot: Save a plot of each layer's ESD in the folder ``savefig``; nothing is shown.
            savefig: That folder, which is created if it is missing. True means ``ww-img``; False saves nothing.
            mp_fit: Add the columns of the Marchenko-Pastur fit.
            randomize: Add the columns of the shuffled weights.
            detX: Add the columns of the trace-log condition.
            ERG: The same as ``detX``.
            tolerance: Eigenvalues below this value count for ``weak_rank_loss``.
            start_ids: As in ``describe``.
            seed: Seed of the shuffles; WeightWatcher has none.
            **others: WeightWatcher's other arguments, which must have their default values unless they change nothing here.

        Returns:
            One row for each layer. ``self.analysis`` is the ``htsr.Analysis`` that the numbers come from.

        Raises:
            TypeError: As ``describe``.
            ValueError: As ``describe``.
            InputError: As ``describe``.
        """
        refuse_unsupported(others)
        source = self._model(model)
        chosen, ids = self._chosen(source, layers, min_evals, max_evals, max_N, start_ids)
        left_out = len(chosen.layers) < len(open_source(source, convention="weightwatcher").layers)
        self.analysis = analyze(
            source,
            layers=[glob_for_name(layer.name) for layer in chosen.layers] if left_out else None,
            bulk=mp_fit,
            randomize=randomize,
            convention="weightwatcher",
            seed=seed,
        )
        details = weightwatcher_table(
            self.analysis,
            mp_fit=mp_fit,
            ERG=ERG or detX,
            randomize=randomize,
            tolerance=tolerance,
            layer_ids=ids,
        )
        if plot and savefig:
            folder = Path("ww-img" if savefig is True else savefig)
            folder.mkdir(parents=True, exist_ok=True)
            for layer in self.analysis:
                if layer.spectrum is not None:
                    layer.plot().savefig(folder / f"ww.layer{ids[layer.name]}.esd.png")
        self.details = details
        return details

    def get_details(self) -> pd.DataFrame | None:
        """Return the table of the last ``analyze``.

        Returns:
            The table, or None before the first call.
        """
        return self.details

    def get_summary(self, details: pd.DataFrame | None = None) -> dict[str, float]:
        """Compute the means of WeightWatcher's summary metrics over the layers.

        Args:
            details: A table of ``analyze``; by default the last one.

        Returns:
            The mean of each summary metric that the table has, over the layers with a value.
        """
        details = self.details if details is None else details
        if details is None:
            return {}
        return {name: float(details[name].mean()) for name in SUMMARISED if name in details}

    def get_ESD(
        self, model: Source | None = None, layer: int | str | None = None, random: bool = False, *, seed: int = 0
    ) -> np.ndarray:
        """Compute the eigenvalues of W^T W of one layer, ascending; as in WeightWatcher, without the scaling of Conv2d.

        Args:
            model: The model; by default that of the constructor.
            layer: Its id or name; the first layer by default.
            random: Shuffle the entries of the weight first.
            seed: Seed of the shuffle.

        Returns:
            The eigenvalues.

        Raises:
            TypeError: If there is no model, or ``layer`` is neither an id nor a name.
            InputError: If there is no such layer, or its weight is not finite.
        """
        chosen, _ = self._chosen(self._model(model), () if layer is None else layer, 0, 0, 0, 0)
        first = chosen.layers[0]
        weight = first.load()
        try:
            return shuffle(weight, seed=seed).spectra[0].eigenvalues if random else esd(weight)
        except ValueError as err:
            raise InputError(f"layer {first.name!r} has no spectrum: {err}") from err

    def distances(
        self, model_1: Source, model_2: Source, method: str | None = "raw", layers: Filters = (), **others: object
    ) -> tuple[float, float, pd.DataFrame]:
        """Compute distances between the weights of two models, layer by layer.

        Args:
            model_1: A model.
            model_2: Another one. Layers without a partner of the same name and shape are listed in ``skipped``.
            method: ``"raw"``: Frobenius norm of the difference, for the biases, too. ``"euclidean"``: the same, as a mean over
                the slices of a convolution. ``"cka"``: root of the uncentred CKA, a mean over the slices, which is 1 for
                equal weights. None means raw.
            layers: As in ``describe``.
            **others: WeightWatcher's other arguments, which must have their default values.

        Returns:
            Mean distance of the weights, mean distance of the biases, and a table indexed by ``layer_id``. Biases come from
            modules and state dicts; for files ``delta_b`` is NaN.

        Raises:
            TypeError: As ``describe``.
            ValueError: If the method is unknown, or an argument has no counterpart in htsr.
            InputError: If no layer is in both models.
        """
        refuse_unsupported({name: value for name, value in others.items() if name != "start_ids"})
        method = (method or "raw").lower()
        if method not in ("raw", "euclidean", "cka"):
            raise ValueError(f"expected method='raw', 'euclidean' or 'cka', got {method!r}")
        model_1, model_2 = _unwrapped(model_1), _unwrapped(model_2)
        start = others.get("start_ids", 0)
        chosen, ids = self._chosen(model_1, layers, MIN_EVALS, MAX_EVALS, MAX_N, int(start))  # type: ignore[call-overload]
        partners = {layer.name: layer for layer in open_source(model_2, convention="weightwatcher").layers}
        rows, skipped = [], []
        for layer in chosen.layers:
            partner = partners.get(layer.name)
            if partner is None or partner.shape != layer.shape:
                why = "no such name in model_2" if partner is None else f"of shape {partner.shape} in model_2"
                skipped.append((layer.name, " x ".join(map(str, layer.shape)), why))
                continue
            W1, W2 = layer.load(), partner.load()
            row = description_row(layer, ids[layer.name], chosen) | {
                "method": method,
                "b_shape": "unknown",
                "delta_b": 0.0,
            }
            if method == "raw":
                row |= {"M": min(W1.shape), "N": max(W1.shape)} | bias_distance(model_1, model_2, layer)
            rows.append(row | {"delta_W": weight_distance(W1, W2, method)})
        if not rows:
            raise InputError(
                f"no layer of {chosen.source} is in model_2 with the same name and shape: {shortened(list(partners))}"
            )
        self.skipped = pd.concat([self.skipped, pd.DataFrame(skipped, columns=list(self.skipped), dtype="str")])
        columns = ["method", "layer_id", "name", "delta_W", "delta_b", "M", "N", "b_shape", "longname"]
        table = pd.DataFrame({column: [row[column] for row in rows] for column in columns}).set_index("layer_id")
        return float(table["delta_W"].mean()), float(table["delta_b"].mean()), table

    def _model(self, model: Source | None) -> Source:
        """Return the model of a call, which later calls then use by default."""
        if model is not None:
            self.model = model
        if self.model is None:
            raise TypeError("expected a model, here or in the constructor, got None")
        return _unwrapped(self.model)

    def _chosen(
        self, source: Source, layers: Filters, min_evals: int, max_evals: int, max_N: int, start_ids: int
    ) -> tuple[Inventory, dict[str, int]]:
        """Return the layers that pass the filters and the id of every layer; list the others in ``skipped``."""
        inventory = open_source(source, convention="weightwatcher")
        ids = layer_ids(source, inventory, start_ids)
        wanted: list[int | str] = [layers] if isinstance(layers, str | int | Integral) else list(layers)
        check_filters(wanted, inventory, ids)
        kept, skipped = [], [(item.name, " x ".join(map(str, item.shape)), item.reason) for item in inventory.skipped]
        for layer in inventory.layers:
            if layer.name not in ids:
                why = "the same module under a second name"
            elif not is_selected(layer, ids[layer.name], wanted):
                why = f"left out by layers={layers!r}"
            elif layer.num_evals < min_evals:
                why = f"{layer.num_evals} eigenvalues, fewer than min_evals={min_evals}"
            elif max_evals and layer.num_evals > max_evals:
                why = f"{layer.num_evals} eigenvalues, more than max_evals={max_evals}"
            elif max_N and max_N < layer.N:
                why = f"a side of {layer.N}, more than max_N={max_N}"
            else:
                kept.append(layer)
                continue
            skipped.append((layer.name, " x ".join(map(str, layer.shape)), why))
        self.skipped = pd.DataFrame(skipped, columns=["name", "shape", "reason"], dtype="str")
        if not kept:
            reasons = "; ".join(f"{count} x {why}" for why, count in self.skipped["reason"].value_counts().items())
            raise InputError(f"no layer of {inventory.source} is left to analyse: {reasons}")
        return Inventory(inventory.source, kept, inventory.skipped), ids


def _unwrapped(model: Source) -> Source:
    """Return the state dict inside ``{"state_dict": ...}``, or the model itself."""
    inner = model.get("state_dict") if isinstance(model, Mapping) else None
    return inner if isinstance(inner, Mapping) else model
