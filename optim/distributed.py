"""Matrices shared out over ranks: one rank collects each matrix, computes its update and sends it back.

Every rank enters the same collectives in the same order at every step, whether it has gradients or not:

- one all-reduce of one number a parameter: does it have a gradient anywhere, is it finite, does anything move;
- for each mesh with matrices sharded on dimension 0: one all-to-all to their owners, and one back;
- for a ``process_group`` with replicated matrices (DDP): one all-gather of the updates.

A matrix that is sharded in another way (tensor parallelism, two mesh dimensions) is gathered by all ranks, one all-gather a
mesh dimension, and every rank computes it.
"""

import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from htsr.optim.rule import UpdateRule
from htsr.optim.stacks import compute_updates


@dataclass
class UpdateJob:
    """One parameter's update in one step.

    Attributes:
        parameter: The parameter, on every rank.
        rule: The rule of its group in this step.
        momentum: This rank's part of the momentum whose spectrum is raised.
        memory: This rank's part of what its updates keep, by name, one-dimensional; overwritten.
    """

    parameter: Tensor
    rule: UpdateRule
    momentum: Tensor
    memory: dict[str, Tensor]

    @property
    def cost(self) -> float:
        """Operations that the update takes, up to a constant."""
        shapes = self.rule.reading.shapes(self.parameter.shape)
        return float(sum(b * m * n * min(m, n) for b, m, n in shapes))


def is_dtensor(tensor: Tensor) -> bool:
    """Return whether a tensor is a ``torch.distributed`` DTensor, without importing that class."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor, sharing its memory, and any other tensor itself."""
    return tensor.to_local() if is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def local_gradient(p: Tensor) -> Tensor | None:
    """Return this rank's part of the gradient, placed like its parameter, or None without a gradient."""
    grad: Any = p.grad
    if grad is not None and is_dtensor(p) and grad.placements != p.placements:  # type: ignore[attr-defined]
        grad = grad.redistribute(placements=p.placements)  # type: ignore[attr-defined]
    return None if grad is None else local_part(grad).resolve_conj()


def zeros_beside(p: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return ``count`` zeros, sharded like a parameter that is sharded on dimension 0, so that checkpoints can reshard."""
    if shard_dimension(p) is None:
        return torch.zeros(count, dtype=dtype, device=local_part(p).device)
    from torch.distributed.tensor import zeros

    return zeros(count, dtype=dtype, device_mesh=p.device_mesh, placements=p.placements)  # type: ignore[attr-defined]


def shard_dimension(p: Tensor) -> int | None:
    """Return the mesh dimension whose placement is ``Shard(0)`` if all others replicate the parameter, else None."""
    if not is_dtensor(p):
        return None
    placements = p.placements  # type: ignore[attr-defined]
    sharded = [i for i, placement in enumerate(placements) if not placement.is_replicate()]
    if len(sharded) != 1:
        return None
    (dimension,) = sharded
    # FSDP over tensor parallelism makes strided shards, which are another class
    return dimension if type(placements[dimension]).__name__ == "Shard" and placements[dimension].dim == 0 else None


def max_over_ranks(values: Tensor, params: Sequence[Tensor], process_group: dist.ProcessGroup | None) -> Tensor:
    """Return the largest of each value over the ranks of the process group and of the meshes of the parameters."""
    groups = [] if process_group is None else [process_group]
    meshes = dict.fromkeys(p.device_mesh for p in params if is_dtensor(p))  # type: ignore[attr-defined]
    groups += [mesh.get_group(dimension) for mesh in meshes for dimension in range(mesh.ndim)]
    for group in groups:
        dist.all_reduce(values, dist.ReduceOp.MAX, group=group)
    return values


def assign_owners(costs: Sequence[float], ranks: int) -> list[int]:
    """Return the rank that does each job: the most expensive first, each given to the rank with the least to do."""
    owners = [0] * len(costs)
    loads = [(0.0, rank) for rank in range(ranks)]
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, owners[i] = heapq.heappop(loads)
        heapq.heappush(loads, (load + costs[i], owners[i]))
    return owners


def run_jobs(jobs: Sequence[UpdateJob], process_group: dist.ProcessGroup | None) -> list[Tensor]:
    """Return this rank's part of every update and overwrite the memories; every rank passes the same jobs.

    Owners compute sharded matrices, and replicated ones if there is a process group; every rank computes the rest.
    """
    by_mesh: dict[Any, list[int]] = {}
    for i, job in enumerate(jobs):
        dimension = shard_dimension(job.parameter)
        mesh = (job.parameter.device_mesh, dimension) if dimension is not None else None  # type: ignore[attr-defined]
        by_mesh.setdefault((mesh, is_dtensor(job.parameter)), []).append(i)
    updates: list[Tensor] = [torch.empty(0)] * len(jobs)
    for (mesh, dtensors), indices in by_mesh.items():
        members = [jobs[i] for i in indices]
        if mesh is not None:
            results = _run_sharded(members, mesh[0].get_group(mesh[1]))
        elif dtensors:
            results = _run_gathered(members)
        elif process_group is not None:
            results = _run_replicated(members, process_group)
        else:
            results = _run_here(members)
        for i, update in zip(indices, results, strict=True):
            updates[i] = update
    return updates


def _compute(
    jobs: Sequence[UpdateJob],
    momenta: Sequence[Tensor] | None = None,
    memories: Sequence[dict[str, Tensor]] | None = None,
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Return the updates and new memories of jobs, whose own momenta and memories are whole unless others are given."""
    return compute_updates(
        [job.rule for job in jobs],
        [job.momentum for job in jobs] if momenta is None else momenta,
        [job.memory for job in jobs] if memories is None else memories,
    )


def _run_here(jobs: list[UpdateJob]) -> list[Tensor]:
    """Compute all updates on this rank."""
    results = _compute(jobs)
    kept = [job.memory[name] for job, (_, memory) in zip(jobs, results, strict=True) for name in memory]
    torch._foreach_copy_(kept, [new for _, memory in results for new in memory.values()])
    return [update for update, _ in results]


def _run_gathered(jobs: list[UpdateJob]) -> list[Tensor]:
    """Gather every matrix on every rank, compute all updates everywhere, and keep this rank's parts."""
    from torch.distributed.tensor import DTensor, Replicate

    whole = []
    for job in jobs:
        p: Any = job.parameter
        sharded = DTensor.from_local(job.momentum, p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
        whole.append(sharded.full_tensor())
    results = _compute(jobs, whole)
    updates = []
    for job, (update, memory) in zip(jobs, results, strict=True):
        p = job.parameter
        _overwrite(job.memory, memory)
        copies = DTensor.from_local(update.contiguous(), p.device_mesh, [Replicate()] * p.device_mesh.ndim)
        updates.append(copies.redistribute(placements=p.placements).to_local())
    return updates


def _run_replicated(jobs: list[UpdateJob], group: dist.ProcessGroup) -> list[Tensor]:
    """Compute each matrix, which every rank has whole, on its owner, and send the results to all ranks."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    owners = assign_owners([job.cost for job in jobs], ranks)
    own = [job for job, owner in zip(jobs, owners, strict=True) if owner == rank]
    results = _compute(own)
    sizes = [[job.momentum.numel(), *(kept.numel() for kept in job.memory.values())] for job in jobs]
    length = max(sum(sum(size) for size, owner in zip(sizes, owners, strict=True) if owner == r) for r in range(ranks))
    dtype = _common_dtype(jobs)
    mine = torch.zeros(length, dtype=dtype, device=jobs[0].momentum.device)
    torch.cat(
        [part.reshape(-1).to(dtype) for update, memory in results for part in (update, *memory.values())] or [mine[:0]],
        out=mine[: sum(sum(size) for size, owner in zip(sizes, owners, strict=True) if owner == rank)],
    )
    everyones = torch.empty(ranks * length, dtype=dtype, device=mine.device)
    dist.all_gather_into_tensor(everyones, mine, group=group)
    position = [r * length for r in range(ranks)]
    updates = []
    for job, owner, size in zip(jobs, owners, sizes, strict=True):
        parts = everyones[position[owner] : position[owner] + sum(size)].split(size)
        position[owner] += sum(size)
        updates.append(parts[0].view(job.momentum.shape))
        _overwrite(job.memory, dict(zip(job.memory, parts[1:], strict=True)))
    return updates


def _run_sharded(jobs: list[UpdateJob], group: dist.ProcessGroup) -> list[Tensor]:
    """Send rows of the momentum and the memories to the owner of each matrix, and rows of its update back."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    owners = assign_owners([job.cost for job in jobs], ranks)
    dtype, device = _common_dtype(jobs), jobs[0].momentum.device
    fields = [[job.momentum, *job.memory.values()] for job in jobs]
    lengths = [[_lengths(shape, ranks) for shape in _whole_shapes(job)] for job in jobs]  # job, field, rank
    by_owner = [[i for i, owner in enumerate(owners) if owner == r] for r in range(ranks)]
    own = by_owner[rank]

    def count(indices: list[int], r: int) -> int:
        return sum(length[r] for i in indices for length in lengths[i])

    away = [count(by_owner[r], rank) for r in range(ranks)]  # of this rank's parts, to each owner
    here = [count(own, r) for r in range(ranks)]  # of the matrices this rank owns, from each rank
    parts = [part.reshape(-1).to(dtype) for indices in by_owner for i in indices for part in fields[i]]
    received = torch.empty(sum(here), dtype=dtype, device=device)
    dist.all_to_all_single(received, torch.cat(parts), here, away, group=group)

    sizes = [[length[r] for i in own for length in lengths[i]] for r in range(ranks)]
    from_ranks = [list(chunk.split(size)) for chunk, size in zip(received.split(here), sizes, strict=True)]
    whole = iter([torch.cat(shards) for shards in zip(*from_ranks, strict=True)])
    momenta, memories = [], []
    for i in own:
        momenta.append(next(whole).view(jobs[i].parameter.shape).to(jobs[i].momentum.dtype))
        memories.append({name: next(whole).to(kept.dtype) for name, kept in jobs[i].memory.items()})
    results = _compute([jobs[i] for i in own], momenta, memories)

    outgoing: list[list[Tensor]] = [[] for _ in range(ranks)]
    for i, (update, memory) in zip(own, results, strict=True):
        for field, length in zip((update, *memory.values()), lengths[i], strict=True):
            for r, shard in enumerate(field.reshape(-1).to(dtype).split(length)):
                outgoing[r].append(shard)
    sent_back = torch.cat([shard for shards in outgoing for shard in shards] or [received[:0]])
    returned = torch.empty(sum(away), dtype=dtype, device=device)
    dist.all_to_all_single(returned, sent_back, away, here, group=group)

    updates: list[Tensor] = [torch.empty(0)] * len(jobs)
    arrived = iter(returned.split([length[rank] for indices in by_owner for i in indices for length in lengths[i]]))
    for i in (i for indices in by_owner for i in indices):
        updates[i] = next(arrived).view(jobs[i].momentum.shape)
        _overwrite(jobs[i].memory, {name: next(arrived) for name in jobs[i].memory})
    return updates


def _whole_shapes(job: UpdateJob) -> list[torch.Size]:
    """Return the shapes of the parameter and of each memory, all ranks together."""
    counts = job.rule.memory_counts(job.parameter.shape)
    return [job.parameter.shape, *(torch.Size([counts[name]]) for name in job.memory)]


def _lengths(shape: torch.Size, ranks: int) -> list[int]:
    """Return how many elements each rank has of a tensor sharded on dimension 0, by torch.chunk's rule."""
    rows, columns = shape[0], shape[1:].numel()
    chunk = -(-rows // ranks)
    return [max(0, min(chunk, rows - r * chunk)) * columns for r in range(ranks)]


def _common_dtype(jobs: list[UpdateJob]) -> torch.dtype:
    """Return a dtype that holds the momenta and the memories of all jobs."""
    dtype = jobs[0].momentum.dtype
    for job in jobs:
        for part in (job.momentum, *job.memory.values()):
            dtype = torch.promote_types(dtype, part.dtype)
    return dtype


def _overwrite(memory: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    for name, kept in new.items():
        memory[name].copy_(kept)
