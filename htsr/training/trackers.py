"""Experiment trackers for ``Monitor(log=...)``.

A tracker is anything that can be called as ``log(metrics, step)``: ``accelerator.log``, a Lightning logger's ``log_metrics``
and ``trackio.log`` fit as they are. The classes here also draw the spectra as histograms, if the tracker can draw them. Each
imports its library when somebody makes one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from htsr.spectra.spectrum import Spectrum
from htsr.training.store.capture import WEIGHTS

# Metrics that are logged as the median over layers, and for each layer that somebody asked for.
LOGGED = ("alpha", "stable_rank", "log_spectral_norm", "distance", "step_vs_promise")
# Bins of a histogram of log10 of the eigenvalues.
BINS = 64

Spectra = Mapping[tuple[str, str], Spectrum]


def tags(
    table: pd.DataFrame, groups: Sequence[Mapping[str, object]], layers: Collection[str] | None = ()
) -> dict[str, float]:
    """Return the metrics of a capture by tag: medians over layers, the metrics of some layers, ``update_rms`` of each group.

    ``layers`` names those layers; None means all. No value is NaN.
    """
    metrics: dict[str, float] = {}
    for quantity, rows in table[table["tied_to"] == ""].groupby("quantity", sort=False):
        prefix = "htsr/" if quantity == WEIGHTS else f"htsr/{quantity}_"
        for metric in LOGGED:
            values = pd.Series(rows[metric].to_numpy(), index=rows["name"]).dropna()
            named = values if layers is None else values[values.index.isin(layers)]
            metrics |= {f"{prefix}{metric}/{name}": float(value) for name, value in named.items()}
            if len(values):
                metrics[f"{prefix}{metric}/median"] = float(values.median())
    several = len({group.get("optimizer") for group in groups}) > 1
    for number, group in enumerate(groups):
        if isinstance(rms := group.get("update_rms"), float):
            owner = f"{group['optimizer']}/" if several else ""
            metrics[f"htsr/update_rms/{owner}group{number}"] = rms
    return metrics


class TensorBoard:
    """Scalars and histograms for TensorBoard.

    Args:
        writer: A ``SummaryWriter``, or the directory in which to make one.
    """

    def __init__(self, writer: Any) -> None:
        if isinstance(writer, str | Path):
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as err:
                raise _missing("tensorboard") from err
            writer = SummaryWriter(str(writer))
        self.writer = writer

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for tag, value in metrics.items():
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()

    def histograms(self, spectra: Spectra, step: int) -> None:
        """Write the ESD of each layer as a histogram of log10 of its eigenvalues."""
        for tag, logs in _logs(spectra):
            self.writer.add_histogram(tag, logs, step, bins=BINS)
        self.writer.flush()


class WandB:
    """Scalars and histograms for Weights & Biases.

    They have an axis of their own, ``htsr/step``. On the run's own step counter, W&B would drop either these metrics or those
    that the training logs.

    Args:
        run: A run; by default the current one.

    Raises:
        ImportError: If wandb is not installed.
        ValueError: If there is no current run.
    """

    def __init__(self, run: Any = None) -> None:
        try:
            import wandb
        except ImportError as err:
            raise _missing("wandb") from err
        self._wandb = wandb
        current = run if run is not None else wandb.run
        if current is None:
            raise ValueError("expected a run of wandb, got none: call wandb.init() first")
        self.run: Any = current
        self.run.define_metric("htsr/step")
        self.run.define_metric("htsr/*", step_metric="htsr/step")

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log scalars."""
        self.run.log({**metrics, "htsr/step": step})

    def histograms(self, spectra: Spectra, step: int) -> None:
        """Log the ESD of each layer as a histogram of log10 of its eigenvalues."""
        drawn = {tag: self._wandb.Histogram(np_histogram=np.histogram(logs, bins=BINS)) for tag, logs in _logs(spectra)}
        self.run.log({**drawn, "htsr/step": step})


class MLflow:
    """Scalars for MLflow, which has no histograms.

    Args:
        run_id: The run; by default the one that is active now. The tracker keeps it, since MLflow has an active run per thread.

    Raises:
        ImportError: If mlflow is not installed.
        ValueError: If there is neither a ``run_id`` nor an active run.
    """

    def __init__(self, run_id: str | None = None) -> None:
        try:
            import mlflow
        except ImportError as err:
            raise _missing("mlflow") from err
        active = mlflow.active_run()
        if run_id is None and active is None:
            raise ValueError("expected a run_id or an active run, got neither: call mlflow.start_run() first")
        self.run_id = run_id if run_id is not None else active.info.run_id  # type: ignore[union-attr]
        self._mlflow = mlflow

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log scalars."""
        self._mlflow.log_metrics(dict(metrics), step=step, run_id=self.run_id)


class TrackerGroup:
    """Passes everything on to several trackers.

    Args:
        *trackers: The trackers.
    """

    def __init__(self, *trackers: Any) -> None:
        self._trackers = trackers

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log scalars to each tracker."""
        for tracker in self._trackers:
            tracker(metrics, step)

    def histograms(self, spectra: Spectra, step: int) -> None:
        """Log spectra to each tracker that draws histograms."""
        for tracker in self._trackers:
            if hasattr(tracker, "histograms"):
                tracker.histograms(spectra, step)


def _logs(spectra: Spectra) -> Iterable[tuple[str, np.ndarray]]:
    """Yield the tag and log10 of the nonzero eigenvalues of each layer that has some."""
    for (quantity, name), spectrum in spectra.items():
        if len(spectrum.nonzero):
            tag = "esd" if quantity == WEIGHTS else f"{quantity}_esd"
            yield f"htsr/{tag}/{name}", np.log10(spectrum.nonzero)


def _missing(library: str) -> ImportError:
    return ImportError(f"{library} is not installed: pip install 'htsr[{library}]'")
