"""A kept result on disk: one zip of a JSON document and arrays, which numpy opens as an npz.

Nothing in it is compressed or pickled, so a reader neither runs code nor unpacks more than the file holds.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htsr.errors import InputError
from htsr.files.regular import open_regular, through_links
from htsr.files.whole import written_aside

DOCUMENT = "result.json"
# A document has a member for each array beside it; nobody has as many.
MAX_MEMBERS = 100


def write_archive(path: Path, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a document and float64 arrays of one dimension; the file appears whole or not at all."""
    with written_aside(through_links(path)) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member(DOCUMENT), json.dumps(document, allow_nan=False, ensure_ascii=True))
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array, dtype="<f8"), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), content.getvalue())


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the document and the arrays of a file; raise ``InputError`` that names what is damaged."""
    arrays = {}
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if DOCUMENT not in names:
                raise InputError(f"{path}: expected a result that htsr saved, got a zip file without {DOCUMENT}")
            if len(members) > MAX_MEMBERS or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise InputError(f"{path}: refused: htsr compresses nothing in a result; save it again")
            for member in members:
                content = _content(archive, member, path)
                if member.filename == DOCUMENT:
                    document = _document(content, path)
                elif member.filename.endswith(".npy"):
                    arrays[member.filename.removesuffix(".npy")] = _array(content, member.filename, path)
    except zipfile.BadZipFile as err:
        raise InputError(f"{path}: expected a result that htsr saved; the file is damaged or cut off ({err})") from err
    return document, arrays


def _member(name: str) -> zipfile.ZipInfo:
    """Return a member with a fixed time, so that one result always gives one file."""
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    """Return the bytes of a member, whose checksum must fit."""
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, OSError) as err:
        raise InputError(f"{path}: {member.filename!r} in it is damaged ({err}); save the result again") from err


def _document(content: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON document."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path}: {DOCUMENT} in it is damaged ({type(err).__name__}); save the result again") from err
    if not isinstance(document, dict):
        raise InputError(f"{path}: {DOCUMENT} in it holds no result")
    return document


def _array(content: bytes, name: str, path: Path) -> np.ndarray:
    """Return an array, whose header must describe the bytes behind it."""
    file = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("an unknown version of npy")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        values = np.frombuffer(content, dtype="<f8", offset=file.tell())
        if dtype != np.dtype("<f8") or shape != values.shape:
            raise ValueError(f"expected {values.size} numbers, its header says {shape} of {dtype}")
    except (ValueError, SyntaxError, TypeError) as err:
        raise InputError(f"{path}: {name!r} in it is damaged ({err}); save the result again") from err
    return values
