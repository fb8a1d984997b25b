"""WeightWatcher's tables: its column names, in its order, with its types."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from htsr.audit.analysis import Analysis
from htsr.audit.cells import warning_of_alpha
from htsr.compat.constants import WEAK_RANK_TOLERANCE
from htsr.spectra import metrics
from htsr.weights import Inventory, Layer

# The columns of weightwatcher.WeightWatcher.analyze(), 0.7.7, in its order, and those that its options add.
WEIGHTWATCHER_COLUMNS = (
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
          "num_ERG_spikes", "ERG_gap", "rand_num_spikes", "num_traps", "num_fingers")  # fmt: skip
TEXTS = ("name", "longname", "layer_type", "status", "warning")


def weightwatcher_table(
    analysis: Analysis,
    *,
    mp_fit: bool = False,
    ERG: bool = False,
    randomize: bool = False,
    tolerance: float = WEAK_RANK_TOLERANCE,
    layer_ids: Mapping[str, int] | None = None,
    layer_cells: Mapping[str, Mapping[str, object]] | None = None,
) -> pd.DataFrame:
    """Make the DataFrame that WeightWatcher's ``analyze()`` returns from an analysis; see ``Analysis.to_weightwatcher``.

    Args:
        analysis: An analysis, best made with ``convention="weightwatcher"``; otherwise the numbers are htsr's.
        mp_fit: Add the columns of the Marchenko-Pastur fit.
        ERG: Add the columns of the trace-log condition.
        randomize: Add the columns of the shuffled weights; the analysis must have been made with ``randomize=True``.
        tolerance: Eigenvalues below this value count for ``weak_rank_loss``.
        layer_ids: ``layer_id`` of each layer by name; by default its number in the table.
        layer_cells: Cells of each layer by name that take the place of its own, or come in columns of their own.

    Returns:
        One row for each layer.
    """
    ids = layer_ids or {layer.name: number for number, layer in enumerate(analysis)}
    of_module = analysis.source.startswith("module ")
    rows = []
    for layer in analysis:
        row = dict(layer.row) | {"layer_id": ids[layer.name], "has_esd": layer.spectrum is not None}
        row["warning"] = warning_of_alpha(row["alpha"])  # which knows no noise
        row["name"] = str(row["longname"]).rpartition(".")[2] if of_module else row["longname"]
        if layer.spectrum is not None:
            row["num_evals"] = len(layer.spectrum)
            row |= _from_eigenvalues(layer.spectrum.eigenvalues, tolerance)
            row |= {"rand_num_spikes": row.get("num_traps"), "rand_W_scale": row.get("W_scale")}
        rows.append(row | dict((layer_cells or {}).get(layer.name, {})))
    columns = [
        *WEIGHTWATCHER_COLUMNS,
        *{name for cells in (layer_cells or {}).values() for name in cells},
        *(MP_COLUMNS if mp_fit else ()),
        *(ERG_COLUMNS if ERG else ()),
        *(RANDOM_COLUMNS if randomize else ()),
    ]
    return typed_table(rows, in_order(columns))


def in_order(columns: Iterable[str]) -> list[str]:
    """Return the columns in WeightWatcher's order: id and name, then the others with capitals first."""
    return ["layer_id", "name", *sorted(set(columns) - {"layer_id", "name"})]


def typed_table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Return rows as a table with these columns, each in WeightWatcher's type; missing cells are NaN."""
    table = pd.DataFrame({column: [row.get(column) for row in rows] for column in columns})
    for column in columns:
        if column in COUNTS:
            counts = table[column].astype("Int64")
            table[column] = counts if counts.isna().any() else counts.astype("int64")
        elif column in TEXTS:
            table[column] = table[column].astype("str")
        elif column not in ("layer_id", "M", "N", "rf", "has_esd", "slice_id", "Xflag"):
            table[column] = table[column].astype("float64")
    return table


def _from_eigenvalues(evals: np.ndarray, tolerance: float) -> dict[str, object]:
    """Return the cells of WeightWatcher that htsr's row does not have."""
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
        "detX_val_unrescaled": evals[-num_ERG] * n / norm,  # WeightWatcher swaps the two names
    }


def description_row(layer: Layer, layer_id: int, inventory: Inventory) -> dict[str, Any]:
    """Return a layer's row of ``describe()``, from what is known before its weight is loaded.

    In a module WeightWatcher's names are the last components of the paths.
    """
    name = layer.longname.rpartition(".")[2] if inventory.source.startswith("module ") else layer.longname
    return {"layer_id": layer_id, "name": name, "M": layer.M, "N": layer.N, "Q": layer.N / layer.M, "rf": layer.rf,
            "layer_type": layer.layer_type, "longname": layer.longname, "num_evals": layer.num_evals}  # fmt: skip
