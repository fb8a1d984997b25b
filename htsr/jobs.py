"""Analyse layers, one after the other here or several at a time on other processes and machines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import joblib
import torch
from threadpoolctl import threadpool_limits

from htsr.layer_analysis import LayerAnalysis, Settings, analyze_layer
from htsr.weights import Layer


def analyze_layers(
    layers: list[Layer], settings: Settings, *, n_jobs: int | None, from_files: bool
) -> Iterator[LayerAnalysis]:
    """Analyse layers and yield each as it is done.

    Args:
        layers: The layers, none of them tied.
        settings: How to analyse them.
        n_jobs: As in joblib and scikit-learn: None is 1 unless a ``joblib.parallel_config`` says otherwise, -1 every core.
        from_files: The layers' ``load`` can be sent to another process, which then reads for itself. Others are loaded here,
            a few at a time, and their weights are sent.

    Yields:
        The analyses; in order with one job, the biggest first with more, so that the last to finish is a small one.
    """
    if joblib.effective_n_jobs(n_jobs) == 1:
        yield from (analyze_layer(layer, settings) for layer in layers)
        return
    biggest_first = sorted(layers, key=_cost, reverse=True)
    tasks = (joblib.delayed(_in_worker)(layer if from_files else _held(layer), settings) for layer in biggest_first)
    threads = torch.get_num_threads()
    try:
        yield from _as_they_are_done(tasks, n_jobs)
    finally:
        torch.set_num_threads(threads)  # workers that are threads of this process have set it to one


def _as_they_are_done(tasks: Iterable[object], n_jobs: int | None) -> Iterator[LayerAnalysis]:
    try:
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:  # a backend that can only return everything at the end, such as ray's
        parallel = joblib.Parallel(n_jobs=n_jobs)
    yield from parallel(tasks)


def _in_worker(layer: Layer, settings: Settings) -> LayerAnalysis:
    """One job has one BLAS thread: two jobs with two each take ten times as long on two cores."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return analyze_layer(layer, settings)


def _cost(layer: Layer) -> int:
    out, into, *kernel = layer.shape
    slices = 1
    for side in kernel:
        slices *= side
    return max(out, into) * min(out, into) ** 2 * slices


def _held(layer: Layer) -> Layer:
    """The same layer with its weight in hand, or with the error that loading it raised."""
    try:
        return replace(layer, load=_Weight(layer.load().detach().cpu()))
    except (ValueError, OSError, RuntimeError, MemoryError) as err:
        return replace(layer, load=_Failure(err))


@dataclass(frozen=True)
class _Weight:
    weight: torch.Tensor

    def __call__(self) -> torch.Tensor:
        return self.weight


@dataclass(frozen=True)
class _Failure:
    error: Exception

    def __call__(self) -> torch.Tensor:
        raise self.error
