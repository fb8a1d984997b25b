"""Compare htsr with weightwatcher and powerlaw, layer by layer, and give the reason for each difference."""

import contextlib
import io
import logging
import warnings
from collections.abc import Hashable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch

from htsr.audit.analysis import Analysis, analyze
from htsr.audit.layer import WEIGHTWATCHER_CUTOFF, LayerAnalysis
from htsr.compat.constants import MAX_EVALS, MAX_N, MIN_EVALS
from htsr.spectra.spectrum import Spectrum
from htsr.weights import open_source, select
from htsr.weights.select import Patterns
from htsr.weights.source import Source

CROSSCHECKED = ("alpha", "D", "xmin")
LEFT_OUT = "powerlaw left htsr's xmin out"
# Relative differences up to this size are arithmetic. Measured: 4e-13 for weightwatcher, 2e-14 for powerlaw's closed form, 1e-7
# if powerlaw searches for alpha numerically.
TOLERANCE = 1e-6
# WeightWatcher 0.7.7 follows another rule if it has fewer eigenvalues to fit.
SMALL_SAMPLE = 20


def crosscheck(source: Source, *, layers: Patterns = None, skip: Patterns = None) -> pd.DataFrame:
    """Fit every layer with three programs and say why they differ if they do.

    Args:
        source: As in ``analyze``, but all weights are in memory at once, because weightwatcher needs them there.
        layers: Layers to keep, as in ``analyze``.
        skip: Layers to leave out, as in ``analyze``.

    Returns:
        One row for each layer. ``name``; ``alpha``, ``D`` and ``xmin`` of htsr under WeightWatcher's
        convention, the same with the suffix ``_weightwatcher`` from its ``analyze()`` and with ``_powerlaw`` from powerlaw's
        own scan of the same eigenvalues; ``alpha_htsr``, htsr's alpha under its own convention; and ``reason``, which is empty
        if all agree to 1e-6 and otherwise gives the known reason for each difference, or "not explained". NaN marks what a
        program did not compute. Layers that htsr does not fit, and those tied to an earlier one, stand last, each with the
        reason and without numbers.

    Raises:
        InputError: As ``analyze``.

    Notes:
        powerlaw needs about a tenth of a second for each layer with 400 eigenvalues.
    """
    own = analyze(source, layers=layers, skip=skip, bulk=False, progress=False)
    analysis = analyze(source, layers=layers, skip=skip, bulk=False, convention="weightwatcher", progress=False)
    own_of = {layer.name: layer for layer in own}  # without grouped kernels, which only WeightWatcher leaves whole
    reasons = {layer.name: _why_dropped(layer, own_of.get(layer.name)) for layer in analysis}
    names = [name for name, reason in reasons.items() if not reason]
    dropped = pd.DataFrame([(name, reason) for name, reason in reasons.items() if reason], columns=["name", "reason"])
    inventory = select(open_source(source, convention="weightwatcher"), layers, skip)
    shapes = {layer.name: layer.shape for layer in inventory.layers}
    weights = {layer.name: layer.load() for layer in inventory.layers if layer.name in set(names)}
    dtypes = {name: weight.dtype for name, weight in weights.items()}
    tensors = {f"{name}.weight": weight.to(torch.float32) for name, weight in weights.items()}
    table = analysis.details[["name", *CROSSCHECKED]]
    table = table[table["name"].isin(names)].reset_index(drop=True)
    table = table.merge(_weightwatcher_fits(tensors), on="name", how="left")
    table = table.merge(_powerlaw_fits(analysis, names), on="name")
    table["alpha_htsr"] = [own_of[name].fit.alpha if name in own_of else np.nan for name in names]
    table["reason"] = [
        "; ".join(_reasons(row, analysis[name].spectrum, own_of.get(name), shapes[name], dtypes[name]))
        for name, row in zip(names, table.to_dict("records"), strict=True)
    ]
    table = table.drop(columns=LEFT_OUT)
    if table.empty:
        return dropped.reindex(columns=table.columns)
    return table if dropped.empty else pd.concat([table, dropped], ignore_index=True)


def _why_dropped(layer: LayerAnalysis, own: LayerAnalysis | None) -> str:
    """Return why a layer is not compared, an empty string if it is."""
    if layer.row["tied_to"]:
        return f"shares the weight of {layer.row['tied_to']}"
    if "success" in (layer.fit.status, "" if own is None else own.fit.status):
        return ""
    return f"htsr does not fit it: {layer.fit.reason}"


def _fitted(spectrum: Spectrum) -> np.ndarray:
    """Return the eigenvalues that WeightWatcher's convention fits."""
    return spectrum.eigenvalues[spectrum.eigenvalues > WEIGHTWATCHER_CUTOFF]


def _reasons(
    row: dict[Hashable, Any],
    scaled: Spectrum | None,
    own: LayerAnalysis | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> list[str]:
    """Return why the numbers of a row differ: one sentence for each program whose numbers do."""
    assert scaled is not None
    spectrum = None if own is None else own.spectrum
    found = []
    if spectrum is None:
        found.append("htsr cuts the kernel into its groups")
    elif spectrum.shape != scaled.shape:
        sides = " x ".join(map(str, spectrum.shape))
        found.append(f"htsr takes the kernel as one {sides} matrix, because each slice is a vector")
    elif not _agree(row["alpha_htsr"], row["alpha"]):
        below = len(spectrum.nonzero) - len(_fitted(scaled))
        found.append(
            f"htsr keeps {below} of {len(spectrum.nonzero)} eigenvalues below weightwatcher's absolute cut-off "
            f"{WEIGHTWATCHER_CUTOFF:g}"
            if below > 0
            else "htsr: not explained"
        )
    if not all(_agree(row[f"{metric}_weightwatcher"], row[metric]) for metric in CROSSCHECKED):
        found.append(f"weightwatcher: {_why_weightwatcher(row, scaled, shape, dtype)}")
    if not all(_agree(row[f"{metric}_powerlaw"], row[metric]) for metric in CROSSCHECKED):
        found.append(f"powerlaw: {_why_powerlaw(row, scaled)}")
    return found


def _agree(value: float, other: float) -> bool:
    """Return whether two numbers are equal to arithmetic, or both missing."""
    return (np.isnan(value) and np.isnan(other)) or bool(np.isclose(value, other, rtol=TOLERANCE, atol=0))


def _why_weightwatcher(row: dict[Hashable, Any], spectrum: Spectrum, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """Return why WeightWatcher's numbers differ."""
    fitted = _fitted(spectrum)
    if len(shape) not in (2, 4):
        return f"does not take {len(shape)}-D weights from a state dict"
    if len(spectrum) < MIN_EVALS:
        return f"skips layers with fewer than {MIN_EVALS} eigenvalues"
    if len(spectrum) > MAX_EVALS:
        return f"skips layers with more than {MAX_EVALS} eigenvalues"
    if max(shape[:2]) > MAX_N:
        return f"skips layers with a side above {MAX_N}"
    if len(fitted) < SMALL_SAMPLE:
        return f"fits {len(fitted)} eigenvalues, fewer than {SMALL_SAMPLE}, by another rule"
    if len(spectrum.nonzero) < len(spectrum) and row["alpha_weightwatcher"] > 0:
        zeros = len(spectrum) - len(spectrum.nonzero)
        return f"fits rounding errors: {zeros} eigenvalues are zero to the precision of the weight"
    if torch.cuda.is_available():
        return "rounds weights to float16 because a GPU is present"
    if dtype == torch.float64:
        return "rounds weights to float32"
    if _agree(row["D_weightwatcher"], row["D"]):
        return "chose another xmin with the same D"
    return "not explained"


def _why_powerlaw(row: dict[Hashable, Any], spectrum: Spectrum) -> str:
    """Return why powerlaw's numbers differ."""
    fitted = _fitted(spectrum)
    if np.isnan(row["alpha_powerlaw"]):
        return "found no fit"
    tail = fitted[fitted >= row["xmin_powerlaw"]]
    likeliest = 1 + len(tail) / np.sum(np.log(tail / row["xmin_powerlaw"]))
    if not _agree(row["alpha_powerlaw"], likeliest):
        return f"its search for alpha stopped at {row['alpha_powerlaw']:.4g}, but the likelihood is largest at {likeliest:.4g}"
    if np.isnan(row["alpha"]):
        return f"fits {len(fitted)} eigenvalues that htsr refuses to fit"
    if _agree(row["D_powerlaw"], row["D"]):
        return "chose another xmin with the same D"
    if len(np.unique(fitted)) < len(fitted):
        return "tries repeated eigenvalues only once"
    if row[LEFT_OUT]:
        return "left out the better xmin, because its search for alpha did not converge there"
    return "not explained"


@contextlib.contextmanager
def quiet_weightwatcher() -> Iterator[ModuleType]:
    """Yield the module weightwatcher, and undo what it does to the process when the block ends.

    On import it silences all warnings and configures the root logger, and it prints while it works. The end of the block
    restores warning filters, loggers and standard streams.
    """
    root, own = logging.getLogger(), logging.getLogger("weightwatcher")
    handlers, level, own_level = list(root.handlers), root.level, own.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            import weightwatcher

            warnings.simplefilter("ignore")
            own.setLevel(logging.ERROR)
            yield weightwatcher
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            own.setLevel(own_level)


def _weightwatcher_fits(tensors: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Return WeightWatcher's fits, one row for each layer; a fit that failed is NaN."""
    columns = [f"{name}_weightwatcher" for name in CROSSCHECKED]
    if not tensors:
        return pd.DataFrame(columns=["name", *columns])
    with quiet_weightwatcher() as weightwatcher:
        details = weightwatcher.WeightWatcher(model=tensors).analyze()
    details = details.reindex(columns=["longname", "status", *CROSSCHECKED])
    fits = details[list(CROSSCHECKED)].astype("float64").where(details["status"] == "success")  # its failed alpha is -1
    return fits.set_axis(columns, axis=1).assign(name=details["longname"].astype("str"))


def _powerlaw_fits(analysis: Analysis, names: list[str]) -> pd.DataFrame:
    """Return powerlaw's fits, one row for each layer, and whether its scan left htsr's xmin out."""
    import powerlaw

    rows = []
    for name in names:
        evals, xmin = _fitted(analysis.spectra[name]), analysis[name].fit.xmin
        if len(np.unique(evals)) < 3:  # powerlaw raises
            rows.append((name, np.nan, np.nan, np.nan, False))
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # Without parameter_ranges powerlaw 2.0 silently keeps alpha below 3.
            scan = powerlaw.Fit(evals, parameter_ranges={"alpha": (1, None)}, verbose=0)
        results = {key: np.asarray(values) for key, values in scan.xmin_fitting_results.items()}
        left_out = bool((~results["valid_fits"][results["xmins"] == xmin]).any())
        fit = scan.power_law
        rows.append((name, float(fit.alpha), float(fit.D), float(fit.xmin), left_out))
    return pd.DataFrame(rows, columns=["name", *(f"{name}_powerlaw" for name in CROSSCHECKED), LEFT_OUT])
