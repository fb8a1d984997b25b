"""htsr beside weightwatcher and powerlaw, layer by layer."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pandas as pd
import torch

from htsr.analysis import Analysis, analyze
from htsr.weights import open_source, select
from htsr.weights.select import Patterns
from htsr.weights.source import Source

COMPARED = ("alpha", "D", "xmin")


def crosscheck(source: Source, *, layers: Patterns = None, skip: Patterns = None) -> pd.DataFrame:
    """Fit every layer with three programs.

    Args:
        source: As in ``analyze``; here all weights are in memory at once, since weightwatcher wants them so.
        layers: Layers to keep, as in ``analyze``.
        skip: Layers to leave out, as in ``analyze``.

    Returns:
        One row a layer that has a fit: ``name``, then alpha, D and xmin of htsr (under WeightWatcher's convention), of
        weightwatcher's ``analyze()`` and of powerlaw's own scan of the same eigenvalues. NaN where a program gave no
        answer.

    Notes:
        WeightWatcher fits layers with fewer than 20 eigenvalues by another rule, and decomposes Conv1d kernels along
        other axes; differences there are expected. Each layer costs powerlaw about a tenth of a second at 400
        eigenvalues.
    """
    analysis = analyze(source, layers=layers, skip=skip, convention="weightwatcher", progress=False)
    table = analysis.details.query("status == 'success' and tied_to == ''")[["name", *COMPARED]].reset_index(drop=True)
    inventory = select(open_source(source), layers, skip)
    tensors = {
        f"{layer.name}.weight": layer.load().to(torch.float32)
        for layer in inventory.layers
        if layer.name in set(table["name"])
    }
    return table.merge(_weightwatcher_fits(tensors), on="name", how="left").merge(
        _powerlaw_fits(analysis, list(table["name"])), on="name"
    )


@contextlib.contextmanager
def quiet_weightwatcher() -> Iterator[ModuleType]:
    """Import weightwatcher, and undo what it does to the process.

    On import it silences all warnings and configures the root logger, and it prints while it works. Warning filters,
    loggers and standard streams are as before when the block ends.

    Yields:
        The module.
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

            own.setLevel(logging.ERROR)
            yield weightwatcher
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            own.setLevel(own_level)


def _weightwatcher_fits(tensors: dict[str, torch.Tensor]) -> pd.DataFrame:
    columns = [f"{name}_weightwatcher" for name in COMPARED]
    if not tensors:
        return pd.DataFrame(columns=["name", *columns])
    with quiet_weightwatcher() as weightwatcher:
        details = weightwatcher.WeightWatcher(model=tensors).analyze()
    details = details.reindex(columns=["longname", "status", *COMPARED])
    fits = details[list(COMPARED)].astype("float64").where(details["status"] == "success")  # its failed alpha is -1
    return fits.set_axis(columns, axis=1).assign(name=details["longname"].astype("str"))


def _powerlaw_fits(analysis: Analysis, names: list[str]) -> pd.DataFrame:
    import powerlaw

    rows = []
    for name in names:
        evals = analysis.spectra[name].nonzero
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # Without parameter_ranges powerlaw 2.0 keeps alpha below 3 and does not say so.
            fit = powerlaw.Fit(evals, parameter_ranges={"alpha": (1, None)}, verbose=0).power_law
        rows.append((name, float(fit.alpha), float(fit.D), float(fit.xmin)))
    return pd.DataFrame(rows, columns=["name", *(f"{name}_powerlaw" for name in COMPARED)])
