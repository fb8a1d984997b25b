"""A capture of a model in training, and the file that keeps it."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from htsr.audit.columns import HISTORY_COLUMNS
from htsr.audit.row import known_cells
from htsr.files import is_sealed, read_regular, seal, unseal, written_aside
from htsr.spectra.spectrum import Spectrum
from htsr.training.store.files import (
    FIRST_WITH_CHECKSUMS,
    LARGEST,
    READABLE,
    SCHEMA,
    DamageError,
    capture_name,
    is_number,
    is_step,
)

WEIGHTS = "weights"
# What can be captured of a layer; each has the layer's shape.
QUANTITIES = (WEIGHTS, "gradients", "momentum", "updates")
# What stands in the header of a capture, and in the table that repeats it.
HEADER = ("step", "seconds", "analysis_seconds", "groups")
_TEXTS = {column.name for column in HISTORY_COLUMNS if column.dtype == "str"}
_NUMBERS = {column.name for column in HISTORY_COLUMNS if column.dtype == "float64"}
_COUNTS = {column.name for column in HISTORY_COLUMNS if column.dtype in ("int64", "Int64")}
_SURE = {column.name for column in HISTORY_COLUMNS if column.dtype == "int64"} - {"step"}  # cannot be missing


@dataclass(frozen=True)
class Capture:
    """What the Monitor saw at one step."""

    step: int  # optimizer steps done
    seconds: float  # since the monitor started
    analysis_seconds: float  # that the analysis of this capture took, on whichever thread
    rows: list[dict[str, object]]  # one a layer and quantity, as in Analysis.details, with the Monitor's own cells
    spectra: dict[tuple[str, str], Spectrum] = field(repr=False)  # by quantity and name
    groups: list[dict[str, object]]  # of the optimizer: settings that are numbers or words, and update_rms

    @property
    def header(self) -> dict[str, Any]:
        """Step, times and parameter groups."""
        return {name: getattr(self, name) for name in HEADER}

    def save(self, path: Path) -> None:
        """Write the capture as one sealed npz file, which appears complete or not at all."""
        about = {
            "schema": SCHEMA,
            **self.header,
            "rows": [known_cells(row) for row in self.rows],
            "spectra": [
                {"quantity": quantity, "name": name, "shape": s.shape, "size": len(s)}
                for (quantity, name), s in self.spectra.items()
            ],
        }
        content = io.BytesIO()
        np.savez(
            content,
            about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            eigenvalues=np.concatenate([[], *(s.eigenvalues for s in self.spectra.values())]),
        )
        with written_aside(path) as file:
            file.write(seal(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> "Capture":
        """Return the capture that ``save`` wrote under this name; raise one of ``DAMAGE`` if it is damaged or too new."""
        data = read_regular(path)
        try:
            capture = cls._parsed(unseal(data) if is_sealed(data) else data, is_sealed(data))
        except DamageError:
            raise
        except (
            Exception
        ) as err:  # a file that is damaged or made to deceive makes zipfile, numpy and json raise anything
            raise DamageError.of(err) from err
        if capture_name(capture.step) != path.name.removeprefix("abandoned-"):
            raise DamageError(f"expected the capture that the name tells, got step {capture.step}")
        return capture

    @classmethod
    def _parsed(cls, data: bytes, sealed: bool) -> "Capture":
        """Return the capture in the bytes of an npz file, or raise whatever its parsers raise."""
        parts = stored_arrays(data)
        about = json.loads(parts["about"].tobytes())
        eigenvalues = parts["eigenvalues"]
        schema = about.pop("schema", 1)
        if schema not in READABLE:
            raise DamageError(f"expected a part of schema {SCHEMA}, got {schema!r}")
        if schema >= FIRST_WITH_CHECKSUMS and not sealed:
            raise DamageError("it does not end with a checksum")
        if not isinstance(about["rows"], list) or not all(map(_is_row, about["rows"])):
            raise DamageError("expected rows with texts and numbers in their columns")
        listed = about.pop("spectra")
        sizes = [item["size"] for item in listed]
        if not all(map(is_step, sizes)) or sum(sizes) != len(eigenvalues) or eigenvalues.dtype != np.float64:
            raise DamageError("expected as many eigenvalues as the spectra have")
        ends = np.cumsum(sizes, dtype=np.int64)
        spectra = {
            (item.get("quantity", WEIGHTS), item["name"]): Spectrum(
                eigenvalues[end - item["size"] : end], tuple(item["shape"])
            )
            for item, end in zip(listed, ends, strict=True)
        }
        return cls(**checked_header({name: about[name] for name in HEADER}), rows=about["rows"], spectra=spectra)


def stored_arrays(data: bytes) -> np.lib.npyio.NpzFile:
    """Return the arrays in the bytes of an npz file; raise ``DamageError`` if they are compressed, and could fill the memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise DamageError("expected members that are not compressed")
    return np.load(io.BytesIO(data), allow_pickle=False)


def checked_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header from JSON, or raise ``DamageError`` if it has other types."""
    groups = header["groups"]
    if not (
        is_step(header["step"])
        and is_number(header["seconds"])
        and is_number(header["analysis_seconds"])
        and isinstance(groups, list)
        and all(isinstance(group, dict) and all(map(_is_setting, group.values())) for group in groups)
    ):
        raise DamageError("expected a step, seconds and the settings of groups")
    return dict(header)


def _is_row(row: object) -> bool:
    """Return whether a value from JSON is a row of ``History.details``; it may have columns that this version lacks."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and row.keys() >= _SURE
        and all(isinstance(row[name], str) for name in _TEXTS & row.keys())
        and all(is_number(row[name]) for name in _NUMBERS & row.keys())
        and all(is_number(row[name]) and row[name] == int(row[name]) for name in _COUNTS & row.keys())
    )


def _is_setting(value: object) -> bool:
    """Return whether a value from JSON fits a table; whole numbers may be too large for one."""
    return not isinstance(value, int) or abs(value) <= LARGEST
