"""Find files with the same bytes: by size, then by their first bytes, then by all of them."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from htsr.comparison.survey.files import WeightFile
from htsr.files import open_regular

HEAD, BLOCK = 2**16, 2**20


def same_files(entries: Sequence[WeightFile]) -> dict[int, tuple[int, str]]:
    """Return, for every entry that repeats an earlier one, the position of that one and a relation.

    The relation is ``same file`` if links lead to one file, or ``same bytes``.
    """
    found: dict[int, tuple[int, str]] = {}
    for group in _groups(range(len(entries)), lambda number: tuple(map(_inode, entries[number].files))):
        found |= {number: (group[0], "same file") for number in group[1:]}
    distinct = [number for number in range(len(entries)) if number not in found]
    for by_size in _groups(distinct, lambda number: tuple(file.stat().st_size for file in entries[number].files)):
        for by_head in _groups(by_size, lambda number: tuple(_digest(file, HEAD) for file in entries[number].files)):
            for group in _groups(by_head, lambda number: tuple(map(_digest, entries[number].files))):
                found |= {number: (group[0], "same bytes") for number in group[1:]}
    # what repeats a copy repeats the first of the copies
    return {number: (found.get(first, (first,))[0], relation) for number, (first, relation) in found.items()}


def _groups(numbers: Sequence[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Return the groups of two or more entries with one key; an entry whose files cannot be read is in no group."""
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for number in numbers:
        try:
            value = key(number)
        except (OSError, ValueError):  # an index can name files that no file system could hold
            continue
        if value:
            by_key[value].append(number)
    return [group for group in by_key.values() if len(group) > 1]


def _inode(file: Path) -> Hashable:
    """Return what is equal for two paths of one file."""
    status = os.stat(file)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(file)


def _digest(file: Path, limit: int | None = None) -> bytes:
    """Return the SHA-256 of a file, or of its first bytes."""
    digest = hashlib.sha256()
    with open_regular(file) as opened:
        if limit is not None:
            digest.update(opened.read(limit))
            return digest.digest()
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.digest()
