"""WeightWatcher's interface to htsr's numbers, so that existing scripts run after one changed import.

``from htsr.compat import WeightWatcher`` replaces ``from weightwatcher import WeightWatcher``. The signatures, the column names
and the conventions are those of WeightWatcher 0.7.7: it scales Conv2d slices by sqrt(1/2) and leaves eigenvalues below 1e-5 out
of fits. The docstring of the class lists the differences.
"""

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from htsr.audit.analysis import Analysis
from htsr.audit.layer import Settings
from htsr.audit.table import shortened
from htsr.bulk import shuffle
from htsr.compat.access import LayerAccess
from htsr.compat.arguments import parsed, valid_params
from htsr.compat.chosen import NO_LIMITS, unwrapped
from htsr.compat.constants import MAX_EVALS, MAX_N, MIN_EVALS, WEAK_RANK_TOLERANCE
from htsr.compat.distances import bias_distance, weight_distance
from htsr.compat.fits import refitted
from htsr.compat.layers import Filters
from htsr.compat.matrices import analysis_of
from htsr.compat.table import (
    DESCRIBED,
    SUMMARISED,
    description_row,
    in_order,
    typed_table,
    weightwatcher_table,
)  # fmt: skip
from htsr.errors import InputError
from htsr.spectra.spectrum import esd
from htsr.weights import open_source
from htsr.weights.source import Source


class WeightWatcher(LayerAccess):
    """A replacement for ``weightwatcher.WeightWatcher``.

    Args:
        model: Anything that ``htsr.analyze`` takes; also ``{"state_dict": ...}``.
        framework: Ignored, as in WeightWatcher.
        base_model: The model that ``model`` started from; its weights are subtracted in every call.
        log_level: Ignored, because nothing is logged.

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
        - Layers find their partner in ``base_model`` by name, not by order; those without one are skipped.
        - ``SVDSmoothing`` and ``SVDSharpness`` count spikes with htsr's bulk, keep the type of a weight, and write into modules
          in place, so that tied weights stay tied.
        - ``layers=`` matches full names as well as last components; it is an error if nothing matches.
    """

    def __init__(
        self,
        model: Source | None = None,
        framework: object = None,
        base_model: Source | None = None,
        log_level: object = None,
    ) -> None:
        super().__init__(model, base_model)
        self.details: pd.DataFrame | None = None
        self.analysis: Analysis | None = None
        self.results = None  # as in WeightWatcher, which never fills it

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"htsr.compat.WeightWatcher has no {name!r}: docs/weightwatcher.md lists the methods and options of WeightWatcher "
            "that it supports"
        )

    def describe(
        self,
        model: Source | None = None,
        layers: Filters = (),
        *,
        min_evals: int = MIN_EVALS,
        max_evals: int = MAX_EVALS,
        max_N: int = MAX_N,
        savefig: str | bool = "ww-img",
        start_ids: int = 0,
        base_model: Source | None = None,
        **others: Any,
    ) -> pd.DataFrame:
        """List the layers that ``analyze`` would analyse: ids, names, types, shapes. No weight is loaded.

        Args:
            model: The model; by default that of the constructor.
            layers: Ids, names or types to keep; negative ids and names with a leading ``-`` are left out.
            min_evals: Leave out layers with fewer eigenvalues.
            max_evals: Leave out layers with more eigenvalues; 0 for no limit.
            max_N: Leave out layers with a larger side; 0 for no limit.
            savefig: Ignored, as in WeightWatcher; nothing is drawn.
            start_ids: The id of a module's first layer.
            base_model: As in ``analyze``.
            **others: WeightWatcher's other arguments: ``pool``, ``intra`` and ``stacked`` as in ``analyze``.

        Returns:
            One row for each layer.

        Raises:
            TypeError: If there is no model, an argument is unknown, or ``layers`` holds something else than ids and names.
            ValueError: If an argument has no counterpart in htsr, or WeightWatcher does not take its value.
            InputError: If no layer is selected.
        """
        options = parsed(others)
        _check_plain(savefig, layers)
        limits = (min_evals, max_evals, max_N)
        chosen, ids = self._chosen(self._model(model, base_model), layers, limits, start_ids, options)
        made = self._matrices(chosen, ids, options)
        rows = [description_row(matrix.layer, matrix.layer_id, chosen) | matrix.cells for matrix in made]
        added = {name for matrix in made for name in matrix.cells}
        return typed_table(rows, in_order({*DESCRIBED, *added}))

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
        base_model: Source | None = None,
        seed: int = 0,
        **others: Any,
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
            base_model: The model that this one started from: its weights are subtracted. Later calls use it, too.
            seed: Seed of the shuffles and of ``sparsify``; WeightWatcher has none.
            **others: WeightWatcher's other arguments: ``pool``, ``conv2d_norm``, ``intra``, ``sparsify``, ``stacked``,
                ``inverse``, ``fix_fingers``, ``max_fingers``, ``finger_thresh``, ``xmax`` and ``pl_package`` work as there;
                the rest must have their default values unless they change nothing here.

        Returns:
            One row for each layer. ``self.analysis`` is the ``htsr.Analysis`` that the numbers come from.

        Raises:
            TypeError: As ``describe``.
            ValueError: As ``describe``.
            InputError: As ``describe``.
        """
        options = parsed(others)
        _check_plain(savefig, layers)
        if options.transforms and randomize:
            raise ValueError(
                "expected randomize=False with intra, stacked or inverse, whose shuffles say nothing about a layer"
            )
        limits = (min_evals, max_evals, max_N)
        chosen, ids = self._chosen(self._model(model, base_model), layers, limits, start_ids, options)
        made = self._matrices(chosen, ids, options, seed)
        settings = Settings(bulk=mp_fit, randomize=randomize, convention="weightwatcher", seed=seed)
        self.analysis, added = refitted(analysis_of(made, chosen, options, settings), options)
        layer_cells = {matrix.layer.name: matrix.cells | added.get(matrix.layer.name, {}) for matrix in made}
        if options.inverse:
            for name, spectrum in self.analysis.spectra.items():
                smallest, largest = spectrum.eigenvalues[[0, -1]]
                layer_cells[name] |= {
                    "sv_max": smallest**-0.5,
                    "sv_min": largest**-0.5,
                }  # of the weight, not of its inverse
        details = weightwatcher_table(
            self.analysis,
            mp_fit=mp_fit,
            ERG=ERG or detX,
            randomize=randomize,
            tolerance=tolerance,
            layer_ids={matrix.layer.name: matrix.layer_id for matrix in made},
            layer_cells=layer_cells,
        )
        if plot and savefig:
            folder = Path("ww-img" if savefig is True else savefig)
            folder.mkdir(parents=True, exist_ok=True)
            for matrix in made:
                layer = self.analysis[matrix.layer.name]
                place = f".{matrix.cells['slice_id']}" if matrix.cells.get("rf", 1) > 1 else ""
                if layer.spectrum is not None:
                    layer.plot().savefig(folder / f"ww.layer{matrix.layer_id}{place}.esd.png")
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
        self,
        model: Source | None = None,
        layer: int | str | None = None,
        random: bool = False,
        params: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
    ) -> np.ndarray:
        """Compute the eigenvalues of W^T W of one layer, ascending; as in WeightWatcher, without the scaling of Conv2d.

        Args:
            model: The model; by default that of the constructor.
            layer: Its id or name; the first layer by default.
            random: Shuffle the entries of the weight first.
            params: WeightWatcher's dictionary of parameters; they must be valid, and none changes the eigenvalues.
            seed: Seed of the shuffle.

        Returns:
            The eigenvalues.

        Raises:
            TypeError: If there is no model, or ``layer`` is neither an id nor a name.
            ValueError: If WeightWatcher would not accept ``params``, or they ask for other numbers than eigenvalues.
            InputError: If there is no such layer, or its weight is not finite.
        """
        if params is not None and not valid_params(params):
            raise ValueError(f"expected parameters that WeightWatcher accepts, got {dict(params)!r}")
        if params is not None and (params.get("inverse") or params.get("intra")):
            raise ValueError("expected params without inverse and intra: analyze() takes them")
        chosen, _ = self._chosen(self._model(model), () if layer is None else layer, NO_LIMITS)
        first = chosen.layers[0]
        weight = first.load()
        try:
            return shuffle(weight, seed=seed).spectra[0].eigenvalues if random else esd(weight)
        except ValueError as err:
            raise InputError(f"layer {first.name!r} has no spectrum: {err}") from err

    def distances(
        self, model_1: Source, model_2: Source, method: str | None = "raw", layers: Filters = (), **others: Any
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
        start = int(others.pop("start_ids", 0))
        parsed(others)
        method = (method or "raw").lower()
        if method not in ("raw", "euclidean", "cka"):
            raise ValueError(f"expected method='raw', 'euclidean' or 'cka', got {method!r}")
        model_1, model_2 = unwrapped(model_1), unwrapped(model_2)
        chosen, ids = self._chosen(model_1, layers, start_ids=start)
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
        self._skip(skipped)
        columns = ["method", "layer_id", "name", "delta_W", "delta_b", "M", "N", "b_shape", "longname"]
        table = pd.DataFrame({column: [row[column] for row in rows] for column in columns}).set_index("layer_id")
        return float(table["delta_W"].mean()), float(table["delta_b"].mean()), table


def _check_plain(savefig: object, layers: Filters) -> None:
    """Raise ValueError for values of ``savefig`` and ``layers`` that WeightWatcher refuses."""
    if not isinstance(savefig, str | bool):
        raise ValueError(f"expected savefig to be a folder, True or False, got {savefig!r}")
    listed = [] if isinstance(layers, str | int | Integral) else list(layers)
    ids = [int(item) for item in listed if not isinstance(item, str) and isinstance(item, Integral)]
    if any(item < 0 for item in ids) and any(item > 0 for item in ids):
        raise ValueError(f"expected ids to keep or ids to leave out in layers=, got both: {layers!r}")
