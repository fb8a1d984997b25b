"""WeightWatcher's interface on htsr's numbers, so that existing scripts carry over by changing one import.

``from htsr.compat import WeightWatcher`` takes the place of ``from weightwatcher import WeightWatcher``. The signatures, the
column names and the conventions are those of WeightWatcher 0.7.7: Conv2d slices scaled by sqrt(1/2), eigenvalues below 1e-5
left out of fits. What differs, because it must, is listed at the class.
"""

import glob
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from htsr import metrics
from htsr.analysis import Analysis, analyze, some
from htsr.bulk import shuffle
from htsr.distances import similarity
from htsr.errors import InputError
from htsr.spectrum import esd
from htsr.weights import Inventory, Layer, open_source
from htsr.weights.source import Source

# Defaults of WeightWatcher 0.7.7: layers outside are left out, and listed in .skipped.
MIN_EVALS, MAX_EVALS, MAX_N = 8, 15000, 50000
WEAK_RANK_TOLERANCE = 1e-6

# Columns of weightwatcher.WeightWatcher.analyze(), 0.7.7, in its order, and what its options add.
COLUMNS = (
    "layer_id", "name", "D", "M", "N", "Q", "alpha", "alpha_weighted", "entropy", "has_esd", "lambda_max", "layer_type",
    "log_alpha_norm", "log_norm", "log_spectral_norm", "longname", "matrix_rank", "norm", "num_evals", "num_pl_spikes",
    "rank_loss", "rf", "sigma", "spectral_norm", "stable_rank", "status", "sv_max", "sv_min", "warning", "weak_rank_loss",
    "xmax", "xmin",
)  # fmt: skip
MP_COLUMNS = ("num_spikes", "sigma_mp", "mp_softrank", "W_scale", "bulk_max", "bulk_min")
ERG_COLUMNS = ("detX_num", "num_ERG_spikes", "ERG_gap", "detX_val", "detX_val_unrescaled")
RANDOM_COLUMNS = (
    "max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist", "rand_num_spikes", "num_traps", "rand_sigma_mp",
    "rand_mp_softrank", "rand_W_scale", "rand_bulk_max", "rand_bulk_min",
)  # fmt: skip
DESCRIBED = ("layer_id", "name", "M", "N", "Q", "layer_type", "longname", "num_evals", "rf")
SUMMARISED = (
    "log_norm", "alpha", "alpha_weighted", "log_alpha_norm", "log_spectral_norm", "stable_rank", "mp_softrank",
)  # fmt: skip
COUNTS = ("num_evals", "num_pl_spikes", "matrix_rank", "rank_loss", "weak_rank_loss", "num_spikes", "detX_num",
          "num_ERG_spikes", "ERG_gap", "rand_num_spikes", "num_traps")  # fmt: skip
TEXTS = ("name", "longname", "layer_type", "status", "warning")
# WeightWatcher's words for kinds of layers, usable in layers=.
LAYER_TYPES = ("dense", "embedding", "conv1d", "conv2d")

# Arguments of WeightWatcher that are accepted at their default and refused otherwise, with what to do instead.
REFUSED: dict[str, tuple[object, str]] = {
    "fit": ("PL", "use htsr.analyze(..., alternatives=True) for other distributions"),
    "pl_package": ("ww", "htsr.crosscheck compares with powerlaw"),
    "fix_fingers": (False, "use htsr.fit_power_law(..., xmax=) or xmin="),
    "xmax": (None, "use htsr.fit_power_law(..., xmax=)"),
    "pool": (True, "every slice of a convolution alone has no counterpart here"),
    "ww2x": (False, "every slice of a convolution alone has no counterpart here"),
    "conv2d_norm": (True, "use htsr.analyze, which has no hidden factor"),
    "base_model": (None, "use htsr.compare(base, model).delta.to_weightwatcher()"),
    "peft": (False, "use htsr.compare(base, merged).delta.to_weightwatcher()"),
    "inverse": (False, "use htsr.fit_power_law(1 / eigenvalues)"),
    **{name: (False, "it has no counterpart here") for name in (
        "glorot_fix", "conv2d_fft", "fft", "deltas", "intra", "vectors", "stacked")},
    "channels": (None, "it has no counterpart here"),
    "min_size": (None, "use min_evals="),
    "max_size": (None, "use max_evals="),
}  # fmt: skip
# Arguments that change nothing here: fits and spectra do not depend on them.
IGNORED = ("svd_method", "sparsify", "xmin_max", "max_fingers", "finger_thresh")

Filters = int | str | Iterable[int | str]


def weightwatcher_table(
    analysis: Analysis,
    *,
    mp_fit: bool = False,
    ERG: bool = False,
    randomize: bool = False,
    tolerance: float = WEAK_RANK_TOLERANCE,
    layer_ids: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """An analysis as the DataFrame that WeightWatcher's ``analyze()`` returns; see ``Analysis.to_weightwatcher``.

    Args:
        analysis: Best made with ``convention="weightwatcher"``; otherwise the numbers are htsr's.
        mp_fit: Add the columns of the Marchenko-Pastur fit.
        ERG: Add those of the trace-log condition.
        randomize: Add those of the shuffled weights; the analysis must have been made with ``randomize=True``.
        tolerance: Eigenvalues below count for ``weak_rank_loss``.
        layer_ids: ``layer_id`` of each layer by name; by default its number in the table.

    Returns:
        One row a layer.
    """
    ids = layer_ids or {layer.name: number for number, layer in enumerate(analysis)}
    of_module = analysis.source.startswith("module ")
    rows = []
    for layer in analysis:
        row = dict(layer.row) | {"layer_id": ids[layer.name], "has_esd": layer.spectrum is not None}
        row["name"] = str(row["longname"]).rpartition(".")[2] if of_module else row["longname"]
        if layer.spectrum is not None:
            row |= _from_eigenvalues(layer.spectrum.eigenvalues, tolerance)
            row |= {"rand_num_spikes": row.get("num_traps"), "rand_W_scale": row.get("W_scale")}
        rows.append(row)
    columns = [
        *COLUMNS,
        *(MP_COLUMNS if mp_fit else ()),
        *(ERG_COLUMNS if ERG else ()),
        *(RANDOM_COLUMNS if randomize else ()),
    ]
    return _table(rows, _sorted(columns))


def _sorted(columns: Iterable[str]) -> list[str]:
    """WeightWatcher's order: id and name, then the others with capitals first."""
    return ["layer_id", "name", *sorted(set(columns) - {"layer_id", "name"})]


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame({column: [row.get(column) for row in rows] for column in columns})
    for column in columns:
        if column in COUNTS:
            counts = table[column].astype("Int64")
            table[column] = counts if counts.isna().any() else counts.astype("int64")
        elif column in TEXTS:
            table[column] = table[column].astype("str")
        elif column not in ("layer_id", "M", "N", "rf", "has_esd", "slice_id"):
            table[column] = table[column].astype("float64")
    return table


def _from_eigenvalues(evals: np.ndarray, tolerance: float) -> dict[str, object]:
    """What WeightWatcher says of a spectrum beyond the columns of htsr."""
    norm, n = float(evals.sum()), len(evals)
    if norm == 0:
        return {"norm": 0.0, "lambda_max": 0.0, "sv_max": 0.0, "sv_min": 0.0, "matrix_rank": 0, "rank_loss": n,
                "weak_rank_loss": n}  # fmt: skip
    rank, num_ERG = metrics.hard_rank(evals), metrics.num_ERG_spikes(evals)
    return {
        "norm": norm,
        "lambda_max": evals[-1],
        "sv_max": math.sqrt(evals[-1]),
        "sv_min": math.sqrt(evals[0]),
        "matrix_rank": rank,
        "rank_loss": n - rank,
        "weak_rank_loss": int((evals < tolerance).sum()),
        "W_scale": math.sqrt(n / norm),
        "detX_num": num_ERG,
        "detX_val": evals[-num_ERG],
        "detX_val_unrescaled": evals[-num_ERG] * n / norm,  # WeightWatcher has the two names swapped
    }


class WeightWatcher:
    """Stands in for ``weightwatcher.WeightWatcher``.

    Args:
        model: Anything that ``htsr.analyze`` takes; also ``{"state_dict": ...}``.
        framework: Ignored, as by WeightWatcher.
        base_model: Not carried over; use ``htsr.compare``.
        log_level: Ignored; nothing is logged.

    Notes:
        Differs from WeightWatcher 0.7.7 where that is the point of changing over:

        - A failed fit is NaN, not -1, has no warning, and is left out of the means of ``get_summary``.
        - ``matrix_rank`` and ``rank_loss`` go by the precision of the stored weights; ``sv_min`` of a convolution is its
          smallest singular value, not the largest of the smallest of each slice.
        - ``num_spikes``, ``mp_softrank``, ``sigma_mp`` and the bulk are those of ``htsr.fit_marchenko_pastur``.
        - ``detX_num`` does not overflow; fits of fewer than 20 eigenvalues follow the same rule as all others; Conv1d is
          decomposed slice by slice.
        - ``randomize=True`` takes a seed; ``num_traps`` is a median over its shuffles, not a sum.
        - Layers that WeightWatcher does not know appear, too. What is left out stands in ``skipped`` with the reason.
        - ``layers=`` matches full names as well as last components; nothing selected is an error.
    """

    def __init__(
        self, model: Source | None = None, framework: object = None, base_model: object = None, log_level: object = None
    ) -> None:
        _refuse({"base_model": base_model})
        self.model = model
        self.details: pd.DataFrame | None = None
        self.analysis: Analysis | None = None
        self.skipped = pd.DataFrame(columns=["name", "shape", "reason"], dtype="str")

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"htsr.compat.WeightWatcher has no {name!r}: it carries over analyze, describe, get_details, get_summary, "
            "get_ESD and distances"
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
        """The layers that ``analyze`` would analyse: ids, names, types, shapes. Nothing is loaded.

        Args:
            model: The model; by default that of the constructor.
            layers: Ids, names or types to keep; negative ids and names with a leading ``-`` are left out.
            min_evals: Layers with fewer eigenvalues are left out.
            max_evals: Layers with more are left out; 0 for no limit.
            max_N: Layers with a larger side are left out.
            start_ids: Where the ids of a module start.
            **others: WeightWatcher's other arguments, refused unless they are at their default.

        Returns:
            One row a layer.

        Raises:
            InputError: If nothing is selected, or an argument has no counterpart.
        """
        _refuse(others)
        chosen, ids = self._chosen(self._model(model), layers, min_evals, max_evals, max_N, start_ids)
        rows = [_described(layer, ids[layer.name], chosen) for layer in chosen.layers]
        return _table(rows, list(DESCRIBED))

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
            plot: Draw the ESD of each layer into the folder ``savefig``; nothing is shown.
            savefig: That folder; made if missing. True means ``ww-img``, False none.
            mp_fit: Add the columns of the Marchenko-Pastur fit.
            randomize: Add the columns of the shuffled weights.
            detX: Add the columns of the trace-log condition.
            ERG: The same.
            tolerance: Eigenvalues below count for ``weak_rank_loss``.
            start_ids: Where the ids of a module start.
            seed: Seed of the shuffles; WeightWatcher has none.
            **others: WeightWatcher's other arguments, refused unless they are at their default or change nothing here.

        Returns:
            One row a layer. ``self.analysis`` is the ``htsr.Analysis`` behind it.

        Raises:
            InputError: If nothing is selected, or an argument has no counterpart.
        """
        _refuse(others)
        source = self._model(model)
        chosen, ids = self._chosen(source, layers, min_evals, max_evals, max_N, start_ids)
        left_out = len(chosen.layers) < len(open_source(source).layers)
        self.analysis = analyze(
            source,
            layers=[_exactly(layer.name) for layer in chosen.layers] if left_out else None,
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
        """The table of the last ``analyze``; None before the first."""
        return self.details

    def get_summary(self, details: pd.DataFrame | None = None) -> dict[str, float]:
        """Means over the layers of WeightWatcher's summary metrics, those that the table has.

        Args:
            details: A table of ``analyze``; by default the last.

        Returns:
            The means. Layers without a value are left out.
        """
        details = self.details if details is None else details
        if details is None:
            return {}
        return {name: float(details[name].mean()) for name in SUMMARISED if name in details}

    def get_ESD(
        self, model: Source | None = None, layer: int | str | None = None, random: bool = False, *, seed: int = 0
    ) -> np.ndarray:
        """Eigenvalues of W^T W of one layer, ascending, without the scaling of Conv2d, as in WeightWatcher.

        Args:
            model: The model; by default that of the constructor.
            layer: Its id or name; the first layer by default.
            random: Shuffle the entries of the weight first.
            seed: Seed of the shuffle.

        Returns:
            The eigenvalues.

        Raises:
            InputError: If there is no such layer, or it is not finite.
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
        """Distances between the weights of two models, layer by layer.

        Args:
            model_1: A model.
            model_2: Another, with layers of the same names and shapes; others are listed in ``skipped``.
            method: ``"raw"``: Frobenius norm of the difference, also of the biases. ``"euclidean"``: the same as a mean over
                the slices of a convolution. ``"cka"``: root of the uncentred CKA, a mean over the slices; note that it is 1
                for equal weights. None means raw.
            layers: As in ``describe``.
            **others: WeightWatcher's other arguments, refused unless they are at their default.

        Returns:
            Mean distance of the weights, mean distance of the biases, and a table indexed by ``layer_id``. Biases are read
            from modules and state dicts; for files ``delta_b`` is NaN.

        Raises:
            InputError: If the method is unknown, or no layer is in both.
        """
        _refuse({name: value for name, value in others.items() if name != "start_ids"})
        method = (method or "raw").lower()
        if method not in ("raw", "euclidean", "cka"):
            raise InputError(f"expected method='raw', 'euclidean' or 'cka', got {method!r}")
        model_1, model_2 = _unwrapped(model_1), _unwrapped(model_2)
        start = others.get("start_ids", 0)
        chosen, ids = self._chosen(model_1, layers, MIN_EVALS, MAX_EVALS, MAX_N, int(start))  # type: ignore[call-overload]
        partners = {layer.name: layer for layer in open_source(model_2).layers}
        rows, skipped = [], []
        for layer in chosen.layers:
            partner = partners.get(layer.name)
            if partner is None or partner.shape != layer.shape:
                why = "no such name in model_2" if partner is None else f"of shape {partner.shape} in model_2"
                skipped.append((layer.name, " x ".join(map(str, layer.shape)), why))
                continue
            W1, W2 = layer.load(), partner.load()
            row = _described(layer, ids[layer.name], chosen) | {"method": method, "b_shape": "unknown", "delta_b": 0.0}
            if method == "raw":
                row |= {"M": min(W1.shape), "N": max(W1.shape)} | _bias_distance(model_1, model_2, layer)
            rows.append(row | {"delta_W": _distance(W1, W2, method)})
        if not rows:
            raise InputError(
                f"no layer of {chosen.source} is in model_2 with the same name and shape: {some(list(partners))}"
            )
        self.skipped = pd.concat([self.skipped, pd.DataFrame(skipped, columns=list(self.skipped), dtype="str")])
        columns = ["method", "layer_id", "name", "delta_W", "delta_b", "M", "N", "b_shape", "longname"]
        table = pd.DataFrame({column: [row[column] for row in rows] for column in columns}).set_index("layer_id")
        return float(table["delta_W"].mean()), float(table["delta_b"].mean()), table

    def _model(self, model: Source | None) -> Source:
        if model is not None:
            self.model = model
        if self.model is None:
            raise InputError("expected a model, here or in the constructor, got None")
        return _unwrapped(self.model)

    def _chosen(
        self, source: Source, layers: Filters, min_evals: int, max_evals: int, max_N: int, start_ids: int
    ) -> tuple[Inventory, dict[str, int]]:
        """The layers that pass the filters, and the id of every layer; the rest goes to ``skipped``."""
        inventory = open_source(source)
        ids = _layer_ids(source, inventory, start_ids)
        wanted: list[int | str] = [layers] if isinstance(layers, str | int | Integral) else list(layers)
        _check_filters(wanted, inventory, ids)
        kept, skipped = [], [(item.name, " x ".join(map(str, item.shape)), item.reason) for item in inventory.skipped]
        for layer in inventory.layers:
            N, num_evals = max(layer.shape[:2]), min(layer.shape[:2]) * math.prod(layer.shape[2:])
            if layer.name not in ids:
                why = "the same module under a second name"
            elif not _passes(layer, ids[layer.name], wanted):
                why = f"left out by layers={layers!r}"
            elif num_evals < min_evals:
                why = f"{num_evals} eigenvalues, fewer than min_evals={min_evals}"
            elif max_evals and num_evals > max_evals:
                why = f"{num_evals} eigenvalues, more than max_evals={max_evals}"
            elif max_N and max_N < N:
                why = f"a side of {N}, more than max_N={max_N}"
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
    inner = model.get("state_dict") if isinstance(model, Mapping) else None
    return inner if isinstance(inner, Mapping) else model


def _refuse(arguments: Mapping[str, object]) -> None:
    for name, value in arguments.items():
        if name in IGNORED:
            continue
        if name not in REFUSED:
            raise TypeError(
                f"unexpected argument {name!r}: WeightWatcher has none of this name, or it is of another method"
            )
        default, remedy = REFUSED[name]
        same = value is default or (type(value) is type(default) and value == default)
        if not same and not (name == "fit" and value == "power_law") and not (name == "fix_fingers" and value is None):
            raise InputError(f"htsr.compat does not carry over {name}={value!r}: {remedy}")


def _layer_ids(source: Source, inventory: Inventory, start_ids: int) -> dict[str, int]:
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


def _check_filters(wanted: list[int | str], inventory: Inventory, ids: Mapping[str, int]) -> None:
    """Refuse a filter that matches nothing: a typing error must not read as an empty model."""
    for item in wanted:
        if not isinstance(item, str | Integral):
            raise InputError(f"expected ids, names or types of layers in layers=, got {item!r}")
        if not any(_matches(layer, ids.get(layer.name), item) for layer in inventory.layers):
            names = [layer.longname for layer in inventory.layers]
            near = get_close_matches(str(item).removeprefix("-"), names, n=3, cutoff=0.4) or names[:3]
            raise InputError(
                f"layers={item!r} matches none of the {len(names)} layers of {inventory.source}: expected an id "
                f"({some(sorted(ids.values()))}), a type ({', '.join(LAYER_TYPES)}) or a name such as {', '.join(near)}"
            )


def _passes(layer: Layer, layer_id: int, wanted: list[int | str]) -> bool:
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


def _exactly(name: str) -> str:
    """A glob that matches this name alone, and is no layer type even where the name is one."""
    return f"[{name[0]}]{glob.escape(name[1:])}" if name[:1].isalnum() else glob.escape(name)


def _described(layer: Layer, layer_id: int, inventory: Inventory) -> dict[str, Any]:
    N, M, rf = max(layer.shape[:2]), min(layer.shape[:2]), math.prod(layer.shape[2:])
    name = layer.longname.rpartition(".")[2] if inventory.source.startswith("module ") else layer.longname
    return {"layer_id": layer_id, "name": name, "M": M, "N": N, "Q": N / M, "layer_type": layer.layer_type,
            "longname": layer.longname, "num_evals": M * rf, "rf": rf}  # fmt: skip


def _distance(W1: torch.Tensor, W2: torch.Tensor, method: str) -> float:
    W1, W2 = W1.cpu().to(torch.float64), W2.cpu().to(torch.float64)
    if method == "raw" or (method == "euclidean" and W1.ndim == 2):
        return float((W1 - W2).norm())
    pairs = list(zip(*(W.reshape(*W.shape[:2], -1).unbind(-1) for W in (W1, W2)), strict=True))
    if method == "euclidean":
        return float(np.mean([float((a - b).norm()) for a, b in pairs]))
    wide = W1.ndim > 2 and W1.shape[0] < W1.shape[1]  # WeightWatcher turns the slices of a convolution, but no matrix
    return float(np.mean([math.sqrt(_uncentred(a.mT, b.mT) if wide else _uncentred(a, b)) for a, b in pairs]))


def _uncentred(a: torch.Tensor, b: torch.Tensor) -> float:
    value = similarity(a, b, rank=1).cka_uncentred
    return 0.0 if math.isnan(value) else value


def _bias_distance(model_1: Source, model_2: Source, layer: Layer) -> dict[str, object]:
    biases = [_bias(model, layer) for model in (model_1, model_2)]
    if any(isinstance(bias, str) for bias in biases):
        return {"delta_b": math.nan}
    b1, b2 = biases
    if b1 is None or b2 is None or b1.shape != b2.shape:
        return {}
    return {"b_shape": b1.numel(), "delta_b": float((b1.double() - b2.double()).norm())}


def _bias(model: Source, layer: Layer) -> Any:
    """The bias of a layer; None where there is none, a text where the source does not hand it out."""
    if isinstance(model, nn.Module):
        module = dict(model.named_modules()).get(layer.longname)
        bias = getattr(module, "bias", None) if layer.layer_type == "dense" else None  # as WeightWatcher
    elif isinstance(model, Mapping):
        bias = model.get(f"{layer.longname}.bias")
    else:
        return "a file"
    return torch.as_tensor(bias).detach().cpu() if isinstance(bias, torch.Tensor | np.ndarray) else None
