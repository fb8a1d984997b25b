"""Matrices of the same shape and settings are stacked and updated together."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from htsr.optim.matrices import Reading
from htsr.optim.update import Memory, matrix_update, memory_shapes

# Entries of the matrices that are updated together. On a CPU a stack only saves calls, and a large one leaves the cache.
STACK_ENTRIES = {"cpu": 2**21}
STACK_ENTRIES_GPU = 2**27


def compute_updates(
    groups: list[dict[str, Any]], directions: list[Tensor], memories: list[dict[str, Tensor]]
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Updates of whole parameters.

    Args:
        groups: The settings of each.
        directions: Their momentum, of their shapes.
        memories: What their updates keep, by name, one-dimensional.

    Returns:
        For each the update and the new memories.
    """
    stacks: dict[Any, list[tuple[int, int, Tensor, Memory]]] = defaultdict(list)
    for i, (group, D, memory) in enumerate(zip(groups, directions, memories, strict=True)):
        reading = reading_of(group)
        for j, (piece, kept) in enumerate(
            zip(reading.pieces(D), _unpack(memory, reading, group, D.shape), strict=True)
        ):
            stacks[id(group), piece.shape[1:], piece.dtype, piece.device].append((i, j, piece, kept))
    updates: dict[int, dict[int, tuple[Tensor, Memory]]] = defaultdict(dict)
    for members in stacks.values():
        for chunk in chunks(members, stack_entries(members[0][2].device), key=lambda member: member[2]):
            sizes = [len(piece) for _, _, piece, _ in chunk]
            stacked = Memory(*(_cat(kind) for kind in zip(*(kept for *_, kept in chunk), strict=True)))
            D_bmn = _cat([piece for _, _, piece, _ in chunk])
            update, new = matrix_update(D_bmn, groups[chunk[0][0]], stacked)
            parts = [([None] * len(sizes) if kind is None else kind.split(sizes)) for kind in (update, *new)]
            for (i, j, _, _), (part, *remembered) in zip(chunk, zip(*parts, strict=True), strict=True):
                updates[i][j] = part, Memory(*remembered)
    results = []
    for i, (group, D, memory) in enumerate(zip(groups, directions, memories, strict=True)):
        pieces = [updates[i][j] for j in range(len(updates[i]))]
        flat = {name: torch.cat([getattr(kept, name).reshape(-1) for _, kept in pieces]) for name in memory}
        results.append((reading_of(group).join([piece for piece, _ in pieces], D.shape), flat))
    return results


def reading_of(group: dict[str, Any]) -> Reading:
    """How a group's parameters are read as matrices.

    Args:
        group: Settings.

    Returns:
        The reading.
    """
    split = group["split"]
    return Reading(group["layout"], tuple(split) if isinstance(split, list) else split, group["split_dim"])


def memory_counts(p: Tensor, group: dict[str, Any]) -> dict[str, int]:
    """What the update of a parameter keeps.

    Args:
        p: The parameter.
        group: Settings.

    Returns:
        Entries by name.
    """
    counts: dict[str, int] = defaultdict(int)
    for shape in reading_of(group).shapes(p.shape):
        for name, (rows, columns) in memory_shapes(group, shape).items():
            counts[name] += shape[0] * rows * columns
    return counts


def stack_entries(device: torch.device) -> int:
    """Entries of the matrices that are updated together.

    Args:
        device: Where they are.

    Returns:
        The largest number.
    """
    return STACK_ENTRIES.get(device.type, STACK_ENTRIES_GPU)


def chunks(items: list[Any], entries: int, key: Callable[[Any], Tensor] = lambda item: item[0]) -> Iterator[list[Any]]:
    """Runs of items with at most so many entries together, or one alone.

    Args:
        items: Anything.
        entries: The largest number.
        key: The tensor of an item.

    Yields:
        The runs.
    """
    chunk: list[Any] = []
    total = 0
    for item in items:
        if chunk and total + key(item).numel() > entries:
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += key(item).numel()
    if chunk:
        yield chunk


def _cat(tensors: Iterable[Tensor | None]) -> Any:
    """One tensor of several; None of Nones. One alone is not copied."""
    there = [tensor for tensor in tensors if tensor is not None]
    return (there[0] if len(there) == 1 else torch.cat(there)) if there else None


def _unpack(flat: dict[str, Tensor], reading: Reading, group: dict[str, Any], shape: torch.Size) -> list[Memory]:
    """A parameter's memory, kept as one flat tensor of each kind, as that of its pieces.

    Args:
        flat: By name.
        reading: Of the parameter.
        group: Settings.
        shape: Of the parameter.

    Returns:
        One for each piece.
    """
    taken = dict.fromkeys(flat, 0)
    memories = []
    for piece in reading.shapes(shape):
        kept = {}
        for name, sides in memory_shapes(group, piece).items():
            count = piece[0] * math.prod(sides)
            kept[name] = flat[name][taken[name] : taken[name] + count].view(piece[0], *sides)
            taken[name] += count
        memories.append(Memory(**kept))
    return memories
