"""Analyse layers, one after the other here or several at a time on other processes and machines."""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from htsr.audit.layer import FAILURES, LayerAnalysis, Settings, analyze_layer, describe, failed, load
from htsr.spectra.spectrum import ONE_THREAD_UP_TO, Gram, esd, esds
from htsr.spectra.threads import one_core, one_thread
from htsr.weights import Layer

# With a device, layers of one shape go there together, as long as their weights and Gram matrices in float64 take no more bytes.
TOGETHER_BYTES = 2**28
# Without one, matrices of at most this many entries that BLAS would not split over threads are decomposed several at a time.
# While more than one a thread are in memory, they have no more entries than this together.
SMALL_ENTRIES = 2**24
# More threads would not help, since one describes what all of them find; nor would more matrices that wait for it.
MAX_THREADS, MAX_AHEAD = 4, 16


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
    import joblib

    if joblib.effective_n_jobs(n_jobs) == 1:
        yield from _one_job(layers, settings)
        return
    batches = [[layer] for layer in layers] if settings.device is None else _equal_shapes(layers)
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


def _one_job(layers: list[Layer], settings: Settings) -> Iterator[LayerAnalysis]:
    """All cores on one matrix at a time, or, where matrices are too small for that, a thread for each of a few."""
    if settings.device is not None:
        for batch in _equal_shapes(layers):
            yield from _together(batch, settings)
        return
    threads = min(torch.get_num_threads(), MAX_THREADS)
    for small, run in itertools.groupby(layers, key=_is_small):
        if small and threads > 1:
            yield from _side_by_side(run, settings, threads)
        else:
            yield from map(partial(analyze_layer, settings=settings), run)


def _is_small(layer: Layer) -> bool:
    return layer.M <= ONE_THREAD_UP_TO and math.prod(layer.shape) <= SMALL_ENTRIES


def _side_by_side(layers: Iterable[Layer], settings: Settings, threads: int) -> Iterator[LayerAnalysis]:
    """Threads compute eigenvalues; this one loads weights, which may not be safe elsewhere, and describes what is done."""
    ahead: deque[tuple[Layer, torch.Tensor, Future[np.ndarray]]] = deque()

    def is_full() -> bool:
        return len(ahead) > MAX_AHEAD or (
            len(ahead) > threads and sum(weight.numel() for _, weight, _ in ahead) > SMALL_ENTRIES
        )

    def next_done() -> LayerAnalysis:
        layer, weight, future = ahead.popleft()
        try:
            evals = future.result()
        except FAILURES as err:
            return failed(layer, err)
        return describe(layer, weight, evals, settings)

    with one_thread(), ThreadPoolExecutor(threads, initializer=one_core) as pool:
        for layer in layers:
            try:
                weight = load(layer, settings)
            except FAILURES as err:
                while ahead:
                    yield next_done()
                yield failed(layer, err)
                continue
            ahead.append((layer, weight, _submit(pool, weight)))
            while is_full():
                yield next_done()
        while ahead:
            yield next_done()


def _submit(pool: ThreadPoolExecutor, weight: torch.Tensor) -> Future[np.ndarray]:
    """Its eigenvalues, from a thread of the pool; at once from here where the weight is on a GPU."""
    if weight.device.type == "cpu":
        return pool.submit(esd, weight)
    future: Future[np.ndarray] = Future()
    try:
        future.set_result(esd(weight))
    except FAILURES as err:
        future.set_exception(err)
    return future


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


def _together(layers: list[Layer], settings: Settings) -> Iterator[LayerAnalysis]:
    """Layers of one shape, in memory together: their eigenvalues come from one call."""
    loaded: list[tuple[Layer, torch.Tensor, Gram]] = []
    for layer in layers:
        try:
            weight = load(layer, settings)
            loaded.append((layer, weight, Gram.of(weight)))
        except FAILURES as err:
            yield failed(layer, err)
    try:
        found = esds([gram for _, _, gram in loaded]) if loaded else []
    except FAILURES:  # too much for the memory together, or one of them does not converge
        found = None
    ready = [(layer, weight) for layer, weight, _ in loaded]
    loaded.clear()
    for number, (layer, weight) in enumerate(ready):
        if found is None:
            yield analyze_layer(replace(layer, load=weight.detach), settings)
        else:
            yield describe(layer, weight, found[number], settings)


def _as_they_are_done(tasks: Iterable[object], n_jobs: int | None) -> Iterator[list[LayerAnalysis]]:
    import joblib

    try:
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:  # a backend that can only return everything at the end, such as ray's
        parallel = joblib.Parallel(n_jobs=n_jobs)
    yield from parallel(tasks)


def _in_worker(batch: list[Layer], settings: Settings) -> list[LayerAnalysis]:
    """One job has one BLAS thread: two jobs with two each take ten times as long on two cores."""
    torch.set_num_threads(1)
    with one_thread():
        return list(_one_job(batch, settings))


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
