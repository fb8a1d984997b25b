"""Open HDF5 files that nobody has vouched for.

The HDF5 library can hang or crash on a damaged file, so the guarded process looks through a file before its values are read.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Filters by their numbers in HDF5 that cannot unpack to more than the library expects, and deflate, which is tried first.
FILTERS = {2: "shuffle", 3: "fletcher32"}
DEFLATE = 1
# A dataset may unpack to so many times the bytes of its file; trained weights unpack to hardly twice as many.
MAX_GROWTH, MAX_GROWN_BYTES = 100, 2**28


@contextmanager
def open_hdf5(path: Path, member: str = "") -> Iterator[Any]:
    """Open an HDF5 file, or a member of a zip archive, as an ``h5py.File``."""
    import h5py

    if not member:
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as inner, h5py.File(inner, "r") as file:
        yield file


def hdf5_datasets(group: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the path of every dataset in a group, and the dataset or, for a link to another place or file, None."""
    import h5py

    # ``seen`` holds the addresses of objects, since a group may contain itself
    seen = {h5py.h5o.get_info(group.id).addr} if seen is None else seen
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield f"{prefix}{name}", None
            continue
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from hdf5_datasets(item, f"{prefix}{name}/", seen)
        elif isinstance(item, h5py.Dataset):
            yield f"{prefix}{name}", item


def why_unreadable(dataset: Any, size: int) -> str | None:
    """Return why the values of a dataset are not read from a file of this size; None if they are."""
    import h5py

    if dataset is None:
        return "not read, since it is a link to another place"
    if dataset.shape is None:
        return "empty: it has no elements"
    if dataset.external or dataset.is_virtual:
        return "not read, since its values are in another file"
    if dataset.dtype.kind not in "fiubV":
        return f"type {dataset.dtype}: not numbers"
    if dataset.nbytes > max(MAX_GROWN_BYTES, MAX_GROWTH * size):
        return f"{dataset.nbytes:,} bytes, far more than the file: refused as a decompression bomb"
    if not dataset.size:
        return None
    if dataset.chunks is None:
        stored = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT or dataset.id.get_storage_size()
        return None if stored else "the file holds no values for it"
    return _why_chunks_unreadable(dataset)


def _why_chunks_unreadable(dataset: Any) -> str | None:
    """Return why the chunks of a dataset are not read: some are missing, or unpack to more than a chunk holds."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    unknown = [number for number in filters if number != DEFLATE and number not in FILTERS]
    if unknown:
        return f"compressed with HDF5 filter {unknown[0]}, which htsr does not read"
    length = math.prod(dataset.chunks) * dataset.dtype.itemsize
    expected = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    if length > max(2 * dataset.nbytes, 2**20):
        return f"chunks of {length:,} bytes for {dataset.nbytes:,} bytes of values: refused as a decompression bomb"
    if dataset.id.get_num_chunks() != expected:
        return f"the file holds {dataset.id.get_num_chunks()} of its {expected} chunks of values"
    if DEFLATE not in filters:
        return None
    for number in range(expected):
        _, packed = dataset.id.read_direct_chunk(dataset.id.get_chunk_info(number).chunk_offset)
        inflate = zlib.decompressobj()
        inflate.decompress(packed, length + 16)  # fletcher32 adds four bytes
        if not inflate.eof and inflate.unconsumed_tail:
            return f"a chunk unpacks to more than its {length:,} bytes: refused as a decompression bomb"
    return None
