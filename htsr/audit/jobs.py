"""Analyse layers, one after the other here or several at a time on other processes and machines."""

import itertools
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from htsr.audit.cells import null_of
from htsr.audit.layer import FAILURES, LayerAnalysis, Settings, analyze_eigenvalues, analyze_layer, failed_layer, load
from htsr.audit.progress import tqdm
from htsr.spectra.spectrum import ONE_THREAD_UP_TO, Gram, esd, esds
from htsr.spectra.threads import one_core, one_thread
from htsr.tails.xmin_rules import XminRule
from htsr.weights import Layer

# Layers of one shape go to a device together as long as their weights and Gram matrices take no more bytes in float64.
TOGETHER_BYTES = 2**28
# On the CPU, several matrices are decomposed at a time if BLAS would not split them over threads and each has at most this
# many entries. Beyond one matrix a thread, all of those in memory have at most this many entries together.
SMALL_ENTRIES = 2**24
# More threads do not help: a single thread assembles the rows and becomes the bottleneck. Nor do more matrices in its queue.
MAX_THREADS, MAX_AHEAD = 4, 16


def analyze_layers(
    layers: list[Layer], settings: Settings, *, n_jobs: int | None, from_files: bool
) -> Iterator[LayerAnalysis]:
    """Analyse layers, none of them tied, and yield each as it is done; only one job without a device keeps their order."""
    if is_one_job(n_jobs):
        yield from _one_job(layers, settings)
        return
    import joblib

    batches = [[layer] for layer in layers] if settings.device is None else _equal_shapes(layers)
    # The biggest first, so that the last to finish is a small one.
    batches.sort(key=lambda batch: sum(layer.cost for layer in batch), reverse=True)
    # Workers open files for themselves; weights in memory are sent to them.
    tasks = (
        joblib.delayed(_in_worker)(batch if from_files else [held(layer) for layer in batch], settings)
        for batch in batches
    )
    threads = torch.get_num_threads()
    try:
        for results in as_they_are_done(tasks, n_jobs):
            yield from results
    finally:
        torch.set_num_threads(threads)  # workers that are threads of this process have set it to one


def draw_nulls(layers: list[Layer], settings: Settings, *, n_jobs: int | None, progress: bool | None) -> None:
    """Draw the noise of each new shape into the cache, the longest first.

    Without this, every worker would draw it for itself, and the layers that wait for it would spoil the remaining time.
    """
    if not settings.bulk:
        return
    shapes = sorted({(layer.M, layer.rf, layer.N) for layer in layers}, reverse=True)
    bar = tqdm(
        total=len(shapes), desc="draw noise", unit="shape", delay=1, leave=False,
        disable=None if progress is None else not progress,
    )  # fmt: skip
    with bar:
        for _ in _drawn([(N, M, rf, settings.xmin) for M, rf, N in shapes], n_jobs):
            bar.update()


def _drawn(nulls: Sequence[tuple[int, int, int, XminRule]], n_jobs: int | None) -> Iterator[object]:
    """Draw the noise of each shape into the cache, and yield after each."""
    if is_one_job(n_jobs):
        yield from itertools.starmap(null_of, nulls)
        return
    import joblib

    yield from as_they_are_done((joblib.delayed(null_of)(*null) for null in nulls), n_jobs)


def _one_job(layers: list[Layer], settings: Settings) -> Iterator[LayerAnalysis]:
    """Analyse layers with all cores on one matrix at a time, or with a thread a matrix where matrices are small."""
    if settings.device is not None:
        for batch in _equal_shapes(layers):
            yield from _together(batch, settings)
        return
    threads = min(torch.get_num_threads(), MAX_THREADS)
    for small, run in itertools.groupby(layers, key=is_small):
        if small and threads > 1:
            yield from _side_by_side(run, settings, threads)
        else:
            yield from map(partial(analyze_layer, settings=settings), run)


def is_one_job(n_jobs: int | None) -> bool:
    """Return whether this process is to do all work, as joblib and its contexts see it."""
    if n_jobs in (None, 1) and "joblib" not in sys.modules:  # so there is no context that could say otherwise
        return True
    import joblib

    return bool(joblib.effective_n_jobs(n_jobs) == 1)


def is_small(layer: Layer) -> bool:
    """Return whether one thread decomposes the layer as fast as several."""
    return layer.M <= ONE_THREAD_UP_TO and math.prod(layer.shape) <= SMALL_ENTRIES


def is_far_ahead(entries: Sequence[int], threads: int) -> bool:
    """Return whether threads have enough to do with weights of so many entries each: more would only fill memory."""
    return len(entries) > MAX_AHEAD or (len(entries) > threads and sum(entries) > SMALL_ENTRIES)


def _side_by_side(layers: Iterable[Layer], settings: Settings, threads: int) -> Iterator[LayerAnalysis]:
    """Load weights and assemble rows on this thread, since readers may not be thread-safe; others compute eigenvalues."""
    ahead: deque[tuple[Layer, torch.Tensor, Future[np.ndarray]]] = deque()

    def next_done() -> LayerAnalysis:
        layer, weight, future = ahead.popleft()
        try:
            evals = future.result()
        except FAILURES as err:
            return failed_layer(layer, err)
        return analyze_eigenvalues(layer, weight, evals, settings)

    with one_thread(), ThreadPoolExecutor(threads, initializer=one_core) as pool:
        for layer in layers:
            try:
                weight = load(layer, settings)
            except FAILURES as err:
                while ahead:
                    yield next_done()
                yield failed_layer(layer, err)
                continue
            ahead.append((layer, weight, _submit(pool, weight)))
            while is_far_ahead([weight.numel() for _, weight, _ in ahead], threads):
                yield next_done()
        while ahead:
            yield next_done()


def _submit(pool: ThreadPoolExecutor, weight: torch.Tensor) -> Future[np.ndarray]:
    """Return the future eigenvalues of a weight; those of a weight on a GPU are computed here and now."""
    if weight.device.type == "cpu":
        return pool.submit(esd, weight)
    future: Future[np.ndarray] = Future()
    try:
        future.set_result(esd(weight))
    except FAILURES as err:
        future.set_exception(err)
    return future


def _equal_shapes(layers: list[Layer]) -> list[list[Layer]]:
    """Return batches of layers whose N, M and rf are equal, in the order of the first layer of each."""
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
    """Load layers of one shape together and compute all their eigenvalues in one call."""
    loaded: list[tuple[Layer, torch.Tensor, Gram]] = []
    for layer in layers:
        try:
            weight = load(layer, settings)
            loaded.append((layer, weight, Gram.of(weight)))
        except FAILURES as err:
            yield failed_layer(layer, err)
    try:
        found = esds([gram for _, _, gram in loaded]) if loaded else []
    except FAILURES:  # they do not fit into memory together, or one of them does not converge
        found = None
    ready = [(layer, weight) for layer, weight, _ in loaded]
    loaded.clear()
    for number, (layer, weight) in enumerate(ready):
        if found is None:
            yield analyze_layer(replace(layer, load=weight.detach), settings)
        else:
            yield analyze_eigenvalues(layer, weight, found[number], settings)


def as_they_are_done(tasks: Iterable[object], n_jobs: int | None) -> Iterator[Any]:
    """Run joblib tasks and yield the result of each as soon as it is done, if the backend can."""
    import joblib

    try:
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:  # a backend that can only return everything at the end, such as ray's
        parallel = joblib.Parallel(n_jobs=n_jobs)
    yield from parallel(tasks)


def _in_worker(batch: list[Layer], settings: Settings) -> list[LayerAnalysis]:
    """Analyse a batch with one BLAS thread: two jobs with two threads each take ten times as long on two cores."""
    torch.set_num_threads(1)
    with one_thread():
        return list(_one_job(batch, settings))


def held(layer: Layer) -> Layer:
    """Return the layer with its weight, or the error that loading it raised, in memory."""
    try:
        return replace(layer, load=_Weight(layer.load().detach().cpu()))
    except FAILURES as err:
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
