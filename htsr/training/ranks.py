"""The processes that train one model together, and watch it together."""

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
    """All processes of a ``torch.distributed`` run, with a group of their own, so that nothing meets the training's messages.

    Every method that talks to the others raises ``RuntimeError`` when one of them has not come within the timeout; from then
    on ``lost`` is true, and nobody should wait for them again.

    Args:
        timeout: Seconds.
    """

    lost = False

    def __init__(self, timeout: float) -> None:
        self._timeout = timedelta(seconds=timeout)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=self._timeout)

    def call_roll(self) -> None:
        """Wait until all ranks are here, before any weight is gathered: whoever is missing is named."""
        with self._noticing():
            dist.monitored_barrier(self._group, timeout=self._timeout, wait_all_ranks=True)

    def share(self, mine: Any) -> list[Any]:
        """Give an object to all ranks, and get theirs, in order of rank."""
        shared: list[Any] = [None] * self.size
        with self._noticing():
            dist.all_gather_object(shared, mine, group=self._group)
        return shared

    def collect(self, mine: Any) -> list[Any]:
        """Give an object to rank 0; there, those of all ranks come back, elsewhere none."""
        collected: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with self._noticing():
            dist.gather_object(mine, collected, dst=0, group=self._group)
        return collected or []

    def pool(
        self, rows: list[Row], spectra: Spectra, problem: str | None, quantities: list[str], order: list[str]
    ) -> tuple[list[Row], Spectra]:
        """Put together what the ranks found.

        Args:
            rows: Of the layers of this rank, with ``name`` and ``quantity``.
            spectra: Of the same, by quantity and name.
            problem: Why this rank found nothing, if so.
            quantities: The order of quantities.
            order: The order of names.

        Returns:
            All rows, in order, and, on rank 0, all spectra.

        Raises:
            RuntimeError: On every rank, if one of them had a problem.
        """
        shared = self.share((rows, problem))
        collected = self.collect(spectra)
        problems = [f"rank {rank}: {told}" for rank, (_, told) in enumerate(shared) if told]
        if problems:
            raise RuntimeError("; ".join(problems))
        place = {name: number for number, name in enumerate(order)}
        rows = sorted(
            (row for theirs, _ in shared for row in theirs),
            key=lambda row: (quantities.index(str(row["quantity"])), place[str(row["name"])]),
        )
        return rows, {key: spectrum for theirs in collected for key, spectrum in theirs.items()}

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            self.lost = True
            raise

    def deal(self, layers: Collection[Layer]) -> set[str]:
        """The layers that this rank analyses: the dearest first, each to the rank with the least to do."""
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
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
