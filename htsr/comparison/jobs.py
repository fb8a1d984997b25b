"""Compare layers: one after the other, small ones on several threads, or several at a time on other processes and machines."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from htsr.audit.jobs import MAX_THREADS, as_they_are_done, held, is_far_ahead, is_one_job, is_small
from htsr.audit.layer import FAILURES, Settings
from htsr.comparison.layer import LayerComparison, compare_layer
from htsr.spectra.threads import one_core, one_thread
from htsr.weights import Layer


@dataclass(frozen=True)
class Pair:
    """A layer in two versions, and in another parent of the second one if there is one."""

    a: Layer
    b: Layer
    other: Layer | None = None

    def compared(self, rank: int, settings: Settings) -> LayerComparison:
        """Return the comparison of the two."""
        return compare_layer(self.a, self.b, rank, settings, self.other)

    def having(self, change: Callable[[Layer], Layer]) -> "Pair":
        """Return the pair with all of its layers changed."""
        return Pair(change(self.a), change(self.b), None if self.other is None else change(self.other))


def compare_pairs(
    pairs: Sequence[Pair], rank: int, settings: Settings, *, n_jobs: int | None, from_files: bool
) -> Iterator[LayerComparison]:
    """Compare pairs of layers and yield each as it is done; only one job keeps their order."""
    if is_one_job(n_jobs):
        yield from _one_job(pairs, rank, settings)
        return
    import joblib

    # The biggest first, so that the last to finish is a small one. Workers open files for themselves; weights in memory are sent.
    order = sorted(pairs, key=lambda pair: pair.a.cost, reverse=True)
    tasks = (joblib.delayed(_in_worker)(pair if from_files else pair.having(held), rank, settings) for pair in order)
    threads = torch.get_num_threads()
    try:
        yield from as_they_are_done(tasks, n_jobs)
    finally:
        torch.set_num_threads(threads)  # workers that are threads of this process have set it to one


def _one_job(pairs: Sequence[Pair], rank: int, settings: Settings) -> Iterator[LayerComparison]:
    """Compare pairs in order, with all cores on one pair at a time, or with a thread a pair where matrices are small."""
    threads = min(torch.get_num_threads(), MAX_THREADS)
    for small, run in groupby(pairs, key=lambda pair: settings.device is None and is_small(pair.a)):
        if not small:
            yield from (pair.compared(rank, settings) for pair in run)
            continue
        with one_thread(), ThreadPoolExecutor(threads, initializer=one_core) as pool:
            ahead: deque[tuple[int, Future[LayerComparison]]] = deque()
            for pair in run:
                # readers may not be safe for several threads
                ahead.append((math.prod(pair.a.shape), pool.submit(pair.having(_loaded).compared, rank, settings)))
                while is_far_ahead([entries for entries, _ in ahead], threads):
                    yield ahead.popleft()[1].result()
            for _, future in ahead:
                yield future.result()


def _in_worker(pair: Pair, rank: int, settings: Settings) -> LayerComparison:
    """Compare a pair with one BLAS thread."""
    torch.set_num_threads(1)
    with one_thread():
        return pair.compared(rank, settings)


def _loaded(layer: Layer) -> Layer:
    """Return the layer with its weight, or the error that loading it raised, in memory."""
    try:
        weight = layer.load()
    except FAILURES as err:
        error = err

        def fail() -> torch.Tensor:
            raise error

        return replace(layer, load=fail)
    return replace(layer, load=lambda: weight)
