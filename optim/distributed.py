"""Matrices dealt out over ranks: each is collected by one rank, which computes its update, and sent back.

Every rank enters the same collectives in the same order at every step, whether it has gradients or not:

- one all-reduce of one number a parameter: does it have a gradient anywhere, is it finite, does anything move;
- for each mesh with matrices sharded on dimension 0: one all-to-all to their owners, and one back;
- for a ``process_group`` with replicated matrices (DDP): one all-gather of the updates.

A matrix that is sharded in another way (tensor parallelism, two mesh dimensions) is gathered by all ranks, one all-gather a
mesh dimension, and every rank computes it.
"""

import heapq
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class Job:
    """One parameter's update in one step.

    Attributes:
        parameter: The parameter, on every rank.
        direction: This rank's part of the momentum to raise.
        memory: This rank's part of what the update keeps, by name, one-dimensional.
        memory_counts: Entries of each memory on all ranks together.
        cost: Of computing it, in any unit.
    """

    parameter: Tensor
    direction: Tensor
    memory: dict[str, Tensor]
    memory_counts: tuple[int, ...]
    cost: float


# Whole directions and memories in, whole updates and new memories out.
Compute = Callable[[list[Job], list[Tensor], list[dict[str, Tensor]]], list[tuple[Tensor, dict[str, Tensor]]]]


def is_dtensor(tensor: Tensor) -> bool:
    """Whether a tensor is a ``torch.distributed`` DTensor, without importing it.

    Args:
        tensor: Any tensor.

    Returns:
        True for DTensors.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory.

    Args:
        tensor: Any tensor.

    Returns:
        The part of a DTensor; anything else itself.
    """
    return tensor.to_local() if is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def local_gradient(p: Tensor) -> Tensor | None:
    """This rank's part of the gradient, placed like its parameter.

    Args:
        p: A parameter.

    Returns:
        The part, or None without a gradient.
    """
    grad: Any = p.grad
    if grad is not None and is_dtensor(p) and grad.placements != p.placements:  # type: ignore[attr-defined]
        grad = grad.redistribute(placements=p.placements)  # type: ignore[attr-defined]
    return None if grad is None else local(grad)


def flat_zeros(count: int, p: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros to keep beside a parameter: sharded like it where it is sharded on dimension 0, so checkpoints can reshard.

    Args:
        count: How many.
        p: The parameter.
        dtype: Of the zeros.

    Returns:
        A tensor or DTensor of shape (count,).
    """
    if shard_dimension(p) is None:
        return torch.zeros(count, dtype=dtype, device=local(p).device)
    from torch.distributed.tensor import zeros

    return zeros(count, dtype=dtype, device_mesh=p.device_mesh, placements=p.placements)  # type: ignore[attr-defined]


def shard_dimension(p: Tensor) -> int | None:
    """The mesh dimension that a parameter is dealt out over.

    Args:
        p: A parameter.

    Returns:
        The one whose placement is ``Shard(0)``, if all others replicate; else None.
    """
    if not is_dtensor(p):
        return None
    placements = p.placements  # type: ignore[attr-defined]
    sharded = [i for i, placement in enumerate(placements) if not placement.is_replicate()]
    if len(sharded) != 1:
        return None
    (dimension,) = sharded
    # strided shards, of FSDP over tensor parallelism, are another class
    return dimension if type(placements[dimension]).__name__ == "Shard" and placements[dimension].dim == 0 else None


def agree(activity: Tensor, params: Sequence[Tensor], process_group: dist.ProcessGroup | None) -> Tensor:
    """The largest of each number over all ranks that share any of the parameters.

    Args:
        activity: One number for each parameter, the same parameters on every rank.
        params: The parameters.
        process_group: Over which replicated matrices are dealt out.

    Returns:
        The largest.
    """
    groups = [] if process_group is None else [process_group]
    meshes = dict.fromkeys(p.device_mesh for p in params if is_dtensor(p))  # type: ignore[attr-defined]
    groups += [mesh.get_group(dimension) for mesh in meshes for dimension in range(mesh.ndim)]
    for group in groups:
        dist.all_reduce(activity, dist.ReduceOp.MAX, group=group)
    return activity


def deal(costs: Sequence[float], ranks: int) -> list[int]:
    """Owners of jobs: the dearest first, each to the rank with the least to do.

    Args:
        costs: Of the jobs.
        ranks: How many ranks there are.

    Returns:
        The owner of each job.
    """
    owners = [0] * len(costs)
    loads = [(0.0, rank) for rank in range(ranks)]
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, owners[i] = heapq.heappop(loads)
        heapq.heappush(loads, (load + costs[i], owners[i]))
    return owners


def run_jobs(jobs: list[Job], compute: Compute, process_group: dist.ProcessGroup | None) -> list[Tensor]:
    """Compute every update once, wherever its owner is; the memories are overwritten.

    Args:
        jobs: The same jobs on every rank.
        compute: What an owner does.
        process_group: Over which replicated matrices are dealt out; None if every rank computes them.

    Returns:
        This rank's part of the update of every job.
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
            results = _run_sharded(members, compute, mesh[0].get_group(mesh[1]))
        elif dtensors:
            results = _run_gathered(members, compute)
        elif process_group is not None:
            results = _run_replicated(members, compute, process_group)
        else:
            results = _run_here(members, compute)
        for i, update in zip(indices, results, strict=True):
            updates[i] = update
    return updates


def _run_here(jobs: list[Job], compute: Compute) -> list[Tensor]:
    results = compute(jobs, [job.direction for job in jobs], [job.memory for job in jobs])
    for job, (_, memory) in zip(jobs, results, strict=True):
        _overwrite(job.memory, memory)
    return [update for update, _ in results]


def _run_gathered(jobs: list[Job], compute: Compute) -> list[Tensor]:
    """All of every matrix on every rank."""
    from torch.distributed.tensor import DTensor, Replicate

    whole = []
    for job in jobs:
        p: Any = job.parameter
        sharded = DTensor.from_local(job.direction, p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
        whole.append(sharded.full_tensor())
    results = compute(jobs, whole, [job.memory for job in jobs])
    updates = []
    for job, (update, memory) in zip(jobs, results, strict=True):
        p = job.parameter
        _overwrite(job.memory, memory)
        copies = DTensor.from_local(update.contiguous(), p.device_mesh, [Replicate()] * p.device_mesh.ndim)
        updates.append(copies.redistribute(placements=p.placements).to_local())
    return updates


def _run_replicated(jobs: list[Job], compute: Compute, group: dist.ProcessGroup) -> list[Tensor]:
    """Every rank has all of every matrix already; the owners' results go to all."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    owners = deal([job.cost for job in jobs], ranks)
    own = [job for job, owner in zip(jobs, owners, strict=True) if owner == rank]
    results = compute(own, [job.direction for job in own], [job.memory for job in own]) if own else []
    sizes = [[job.direction.numel(), *(kept.numel() for kept in job.memory.values())] for job in jobs]
    length = max(sum(sum(size) for size, owner in zip(sizes, owners, strict=True) if owner == r) for r in range(ranks))
    dtype = _common_dtype(jobs)
    mine = torch.zeros(length, dtype=dtype, device=jobs[0].direction.device)
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
        updates.append(parts[0].view(job.direction.shape))
        _overwrite(job.memory, dict(zip(job.memory, parts[1:], strict=True)))
    return updates


def _run_sharded(jobs: list[Job], compute: Compute, group: dist.ProcessGroup) -> list[Tensor]:
    """Rows go to the owner, rows of the update come back; memories travel the same way."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    owners = deal([job.cost for job in jobs], ranks)
    dtype, device = _common_dtype(jobs), jobs[0].direction.device
    fields = [[job.direction, *job.memory.values()] for job in jobs]
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
    directions, memories = [], []
    for i in own:
        directions.append(next(whole).view(jobs[i].parameter.shape).to(jobs[i].direction.dtype))
        memories.append({name: next(whole).to(kept.dtype) for name, kept in jobs[i].memory.items()})
    results = compute([jobs[i] for i in own], directions, memories) if own else []

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
        updates[i] = next(arrived).view(jobs[i].direction.shape)
        _overwrite(jobs[i].memory, {name: next(arrived) for name in jobs[i].memory})
    return updates


def _whole_shapes(job: Job) -> list[torch.Size]:
    """Of the parameter and of what is kept beside it, as they are on no single rank."""
    return [job.parameter.shape, *(torch.Size([kept]) for kept in job.memory_counts)]


def _lengths(shape: torch.Size, ranks: int) -> list[int]:
    """Entries on each rank of a tensor sharded on dimension 0, by torch.chunk's rule."""
    rows, columns = shape[0], shape[1:].numel()
    chunk = -(-rows // ranks)
    return [max(0, min(chunk, rows - r * chunk)) * columns for r in range(ranks)]


def _common_dtype(jobs: list[Job]) -> torch.dtype:
    dtype = jobs[0].direction.dtype
    for job in jobs:
        for part in (job.direction, *job.memory.values()):
            dtype = torch.promote_types(dtype, part.dtype)
    return dtype


def _overwrite(memory: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    for name, kept in new.items():
        memory[name].copy_(kept)
