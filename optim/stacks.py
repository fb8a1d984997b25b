"""Updates of parameters: their pieces are stacked with others of the same shape and rule, and updated together."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from htsr.optim.rule import UpdateRule
from htsr.optim.update import UpdateMemory, matrix_update

Item = TypeVar("Item")

# Elements of the matrices that are updated together. On a CPU a stack only saves calls, and a large one leaves the cache.
STACK_ELEMENTS = {"cpu": 2**21}
STACK_ELEMENTS_GPU = 2**27


class _Piece(NamedTuple):
    rule: UpdateRule
    momentum_bmn: Tensor
    memory: UpdateMemory


def batches(
    items: Iterable[Item],
    key: Callable[[Item], Hashable],
    tensor: Callable[[Item], Tensor],
    limit: Callable[[torch.device], int],
) -> Iterator[list[Item]]:
    """Yield the items of each key in lists of at most ``limit`` elements; an item with more gets a list of its own."""
    by_key: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        by_key[key(item)].append(item)
    for members in by_key.values():
        most = limit(tensor(members[0]).device)
        batch: list[Item] = []
        total = 0
        for item in members:
            count = tensor(item).numel()
            if batch and total + count > most:
                yield batch
                batch, total = [], 0
            batch.append(item)
            total += count
        yield batch


def stack_limit(device: torch.device) -> int:
    """Return how many elements the matrices of one stack may have together."""
    return STACK_ELEMENTS.get(device.type, STACK_ELEMENTS_GPU)


def compute_updates(
    rules: Sequence[UpdateRule], momenta: Sequence[Tensor], memories: Sequence[dict[str, Tensor]]
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Return the update and the new memories of each whole parameter; memories are one-dimensional, by name."""
    pieces = [
        _Piece(rule, piece, kept)
        for rule, momentum, memory in zip(rules, momenta, memories, strict=True)
        for piece, kept in zip(
            rule.reading.pieces(momentum), _memories_of_pieces(memory, rule, momentum.shape), strict=True
        )
    ]
    results: list[Any] = [None] * len(pieces)
    for stack in batches(
        range(len(pieces)),
        key=lambda i: _stack_key(pieces[i].rule, pieces[i].momentum_bmn),
        tensor=lambda i: pieces[i].momentum_bmn,
        limit=stack_limit,
    ):
        members = [pieces[i] for i in stack]
        memory = UpdateMemory(*(_cat(kind) for kind in zip(*(member.memory for member in members), strict=True)))
        update, new = matrix_update(_cat(member.momentum_bmn for member in members), members[0].rule, memory)
        sizes = [len(member.momentum_bmn) for member in members]
        parts = [[None] * len(sizes) if kind is None else kind.split(sizes) for kind in (update, *new)]
        for i, (part, *kept) in zip(stack, zip(*parts, strict=True), strict=True):
            results[i] = part, UpdateMemory(*kept)
    remaining = iter(results)
    updates = []
    for rule, momentum, memories_before in zip(rules, momenta, memories, strict=True):
        own = [next(remaining) for _ in rule.reading.shapes(momentum.shape)]
        flat = {name: _cat(getattr(kept, name).reshape(-1) for _, kept in own) for name in memories_before}
        updates.append((rule.reading.join([piece for piece, _ in own], momentum.shape), flat))
    return updates


def _stack_key(rule: UpdateRule, piece_bmn: Tensor) -> Hashable:
    return rule, piece_bmn.shape[1:], piece_bmn.dtype, piece_bmn.device


def _cat(tensors: Iterable[Tensor | None]) -> Any:
    """Concatenate tensors and leave out None: None if nothing is left, the tensor itself if only one is."""
    there = [tensor for tensor in tensors if tensor is not None]
    return (there[0] if len(there) == 1 else torch.cat(there)) if there else None


def _memories_of_pieces(flat: dict[str, Tensor], rule: UpdateRule, shape: torch.Size) -> list[UpdateMemory]:
    """Return views of a parameter's flat memories, one for each of its pieces."""
    taken = dict.fromkeys(flat, 0)
    memories = []
    for piece in rule.reading.shapes(shape):
        kept = {}
        for name, sides in rule.memory_shapes(piece).items():
            count = piece[0] * math.prod(sides)
            kept[name] = flat[name][taken[name] : taken[name] + count].view(piece[0], *sides)
            taken[name] += count
        memories.append(UpdateMemory(**kept))
    return memories
