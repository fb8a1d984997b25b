"""The processes of a distributed training, which also watch the model together."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from htsr.spectra.spectrum import Spectrum
from htsr.weights import Layer

Row = dict[str, object]
Spectra = dict[tuple[str, str], Spectrum]


class Ranks:
    """All processes of a ``torch.distributed`` run, in a group of their own that keeps out of the training's messages.

    Every method that talks to the other ranks raises ``RuntimeError`` if one of them does not come within ``timeout`` seconds.
    From then on ``lost`` is true, and the ranks should not wait for each other again.
    """

    lost = False

    def __init__(self, timeout: float) -> None:
        self._timeout = timedelta(seconds=timeout)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=self._timeout)

    def call_roll(self) -> None:
        """Wait until all ranks have come, before any of them gathers weights; the error names a rank that is missing."""
        with self._noticing_lost_ranks():
            dist.monitored_barrier(self._group, timeout=self._timeout, wait_all_ranks=True)

    def share(self, mine: Any) -> list[Any]:
        """Give an object to all ranks, and return the objects of all ranks in order."""
        shared: list[Any] = [None] * self.size
        with self._noticing_lost_ranks():
            dist.all_gather_object(shared, mine, group=self._group)
        return shared

    def collect(self, mine: Any) -> list[Any]:
        """Give an object to rank 0; return the objects of all ranks in order there, and an empty list elsewhere."""
        collected: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with self._noticing_lost_ranks():
            dist.gather_object(mine, collected, dst=0, group=self._group)
        return collected or []

    def pool(
        self, rows: list[Row], spectra: Spectra, problem: str | None, quantities: list[str], order: list[str]
    ) -> tuple[list[Row], Spectra]:
        """Return the rows of all ranks, in the given orders, and on rank 0 all spectra; raise the problems of all ranks."""
        shared = self.share((rows, problem))
        collected = self.collect(spectra)
        problems = [f"rank {rank}: {theirs}" for rank, (_, theirs) in enumerate(shared) if theirs]
        if problems:
            raise RuntimeError("; ".join(problems))
        place = {name: number for number, name in enumerate(order)}
        rows = sorted(
            (row for theirs, _ in shared for row in theirs),
            key=lambda row: (quantities.index(str(row["quantity"])), place[str(row["name"])]),
        )
        return rows, {key: spectrum for theirs in collected for key, spectrum in theirs.items()}

    @contextmanager
    def _noticing_lost_ranks(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            self.lost = True
            raise

    def deal(self, layers: Collection[Layer]) -> set[str]:
        """Return the names of this rank's layers: the costliest layer goes first, each to the rank with the least work."""
        loads = [0] * self.size
        mine = set()
        for layer in sorted(
            (layer for layer in layers if layer.tied_to is None), key=lambda layer: layer.cost, reverse=True
        ):
            least = loads.index(min(loads))
            loads[least] += layer.cost
            if least == self.rank:
                mine.add(layer.name)
        return mine


def is_distributed() -> bool:
    """Return whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
