"""What an HDF5 file holds.

The HDF5 library can hang or crash on a damaged file. So a file is looked through once in a process of its own, by running this
very file, before this process opens it; and so this file imports nothing of htsr but where it is needed.
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
# A look takes a fraction of a second whatever the size of the weights, most of it to import h5py. The limit is on the time of
# the processor, so that a busy machine refuses no good file.
SECONDS = 4
WAIT_SECONDS = 60


def check_hdf5(path: Path, member: str = "") -> None:
    """Refuse a file that the HDF5 library cannot list.

    Args:
        path: The file.
        member: Name of the HDF5 file inside it, if it is a zip archive.

    Raises:
        InputError: If the library stumbles, crashes, or gives no answer.
    """
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
        error = unreadable_file(path, KIND, InputError(f"no answer within {WAIT_SECONDS} s"))
        raise error from err
    if look.returncode:
        said = look.stderr.strip().split("\n")[-1] or f"it crashed or took more than {SECONDS} s"
        error = unreadable_file(path, KIND, InputError(said))
        raise error


@contextmanager
def open_hdf5(path: Path, member: str = "") -> Iterator[Any]:
    """Open an HDF5 file, or one inside a zip archive.

    Args:
        path: The file, or the archive.
        member: Name of the file in the archive; empty if it is none.

    Yields:
        The ``h5py.File``.
    """
    import h5py

    if not member:
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as inner, h5py.File(inner, "r") as file:
        yield file


def hdf5_datasets(group: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Datasets of a group and its groups; links to other places and files are not followed.

    Args:
        group: An ``h5py.Group``.
        prefix: Where it stands.
        seen: Addresses of objects that were met already: a group may hold itself.

    Yields:
        Path and dataset.
    """
    import h5py

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
    if importlib.util.find_spec("resource") is not None:  # not on Windows
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
