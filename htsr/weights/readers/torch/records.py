"""Tensors that a zip archive of torch stores as records of plain bytes: which elements of a record, and how to read them."""

import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch


@dataclass(frozen=True)
class RecordedTensor:
    """A tensor: its record, and the elements of the record that it consists of."""

    dtype: torch.dtype | None
    record: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """The number of elements from the first to the last one."""
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


def why_unreadable(tensor: RecordedTensor, entry: zipfile.ZipInfo | None) -> str | None:
    """Return why a tensor cannot be read from its record; None if it can."""
    if tensor.dtype is None:
        return "a type of storage that htsr does not read"
    if not math.prod(tensor.shape):
        return None
    if entry is None or (tensor.offset + tensor.span) * tensor.dtype.itemsize > entry.file_size:
        return "the file holds fewer values than its shape needs"
    if entry.compress_type != zipfile.ZIP_STORED:
        return "its values are compressed inside the archive, which torch never does"
    return "an expanded view: it repeats the values that it stores" if tensor.span < math.prod(tensor.shape) else None


def read_record(path: Path, entry: str, tensor: RecordedTensor, rows: slice | None) -> torch.Tensor:
    """Return a tensor, or some of its rows; only the bytes between its first and its last element are read."""
    dtype = tensor.dtype
    assert dtype is not None
    if not math.prod(tensor.shape):
        return torch.empty(tensor.shape, dtype=dtype)
    if rows is not None:
        start, stop, _ = rows.indices(tensor.shape[0])
        offset = tensor.offset + start * tensor.strides[0]
        tensor = replace(tensor, offset=offset, shape=(stop - start, *tensor.shape[1:]))
    with zipfile.ZipFile(path) as archive, archive.open(entry) as record:
        record.seek(tensor.offset * dtype.itemsize)
        data = bytearray(record.read(tensor.span * dtype.itemsize))
    return torch.frombuffer(data, dtype=dtype).as_strided(tensor.shape, tensor.strides)
