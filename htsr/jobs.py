"""Analyse layers, one after the other here or several at a time on other processes and machines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import joblib
import torch

from htsr.layer_analysis import LayerAnalysis, Settings, analyze_equal_shapes
from htsr.threads import one_thread
from htsr.weights import Layer

# With a device, layers of one shape go there together, as long as their weights and Gram matrices in float64 take no more bytes.
TOGETHER_BYTES = 2**28


def analyze_layers(
    layers: list[Layer], settings: Settings, *, n_jobs: int | None, from_files: bool
) -> Iterator[LayerAnalysis]:
    """Analyse layers and yield each as it is done.

    Args:
        layers: The layers, none of them tied.
        settings: How to analyse them. Where it names a device, layers of one shape go there together.
        n_jobs: As in joblib and scikit-learn: None is 1 unless a ``joblib.parallel_config`` says otherwise, -1 every core.
        from_files: The layers' ``load`` can be sent to another process, which then reads for itself. Others are loaded here,
            a few at a time, and their weights are sent.

    Yields:
        The analyses; with one job and no device in order, with more jobs the biggest first, so that the last to finish is a
        small one.
    """
    batches = [[layer] for layer in layers] if settings.device is None else _equal_shapes(layers)
    if joblib.effective_n_jobs(n_jobs) == 1:
        for batch in batches:
            yield from analyze_equal_shapes(batch, settings)
        return
    batches.sort(key=lambda batch: sum(layer.cost for layer in batch), reverse=True)
    tasks = (
        joblib.delayed(_in_worker)(batch if from_files else [_held(layer) for layer in batch], settings)
        for batch in batches
    )
    threads = torch.get_num_threads()
    try:
        for results in _as_they_are_done(tasks, n_jobs):
            yield from results
    finally:
        torch.set_num_threads(threads)  # workers that are threads of this process have set it to one


def _equal_shapes(layers: list[Layer]) -> list[list[Layer]]:
    """Layers of one shape together, transposed ones too, in the order of the first of each."""
    batches: list[list[Layer]] = []
    filling: dict[tuple[int, ...], list[Layer]] = {}
    for layer in layers:
        sides = layer.N, layer.M, layer.rf
        size = 8 * layer.num_evals * (layer.N + layer.M)
        if sides not in filling or (len(filling[sides]) + 1) * size > TOGETHER_BYTES:
            filling[sides] = []
            batches.append(filling[sides])
        filling[sides].append(layer)
    return batches


def _as_they_are_done(tasks: Iterable[object], n_jobs: int | None) -> Iterator[list[LayerAnalysis]]:
    try:
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:  # a backend that can only return everything at the end, such as ray's
        parallel = joblib.Parallel(n_jobs=n_jobs)
    yield from parallel(tasks)


def _in_worker(batch: list[Layer], settings: Settings) -> list[LayerAnalysis]:
    """One job has one BLAS thread: two jobs with two each take ten times as long on two cores."""
    torch.set_num_threads(1)
    with one_thread():
        return list(analyze_equal_shapes(batch, settings))


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
