"""Open HDF5 files safely.

The HDF5 library can hang or crash on a damaged file. ``check_hdf5`` therefore runs this file as a script in a process of its own,
which reads through the HDF5 file before this process opens it. For the same reason this file imports htsr only inside functions.
"""

import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KIND = "HDF5 file"
# The check takes a fraction of a second whatever the size of the weights, most of it to import h5py. SECONDS limits CPU time, so
# that a busy machine does not refuse a good file; WAIT_SECONDS limits the time on the clock.
SECONDS = 4
WAIT_SECONDS = 60


def check_hdf5(path: Path, member: str = "") -> None:
    """Raise InputError if the HDF5 library fails, crashes or hangs on a file, or on a member of a zip archive."""
    from htsr.errors import InputError
    from htsr.weights.readers.archives import unreadable_file

    try:
        look = subprocess.run(
            [sys.executable, "-I", __file__, str(path), member],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise unreadable_file(
            path, KIND, InputError(f"the HDF5 library did not answer within {WAIT_SECONDS} s")
        ) from err
    if look.returncode:
        said = look.stderr.strip().split("\n")[-1] or f"the HDF5 library crashed or took more than {SECONDS} s"
        raise unreadable_file(path, KIND, InputError(said))


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
    """Yield the path and dataset of every dataset in a group, without following links to other places or files."""
    import h5py

    # ``seen`` holds the addresses of objects, since a group may contain itself
    seen = {h5py.h5o.get_info(group.id).addr} if seen is None else seen
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
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


def _look_through(path: str, member: str) -> None:
    """Read a little of every dataset, so that a damaged file fails here."""
    if importlib.util.find_spec("resource") is not None:  # missing on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with open_hdf5(Path(path), member) as file:
        for value in file.attrs.values():
            str(value)
        for _, dataset in hdf5_datasets(file):
            stored_here = not dataset.external and not dataset.is_virtual
            if stored_here and dataset.size:
                dataset[(0,) * dataset.ndim]
                if dataset.chunks:
                    dataset.id.get_num_chunks()


if __name__ == "__main__":
    _look_through(*sys.argv[1:])
