"""Read what ``save`` wrote."""

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from htsr.audit.columns import BY_NAME
from htsr.audit.table import details_frame
from htsr.comparison.saved import read_result
from htsr.errors import InputError
from htsr.files import read_regular, require_parquet

if TYPE_CHECKING:
    from htsr.audit.analysis import Analysis
    from htsr.comparison.compare import Comparison

# What each table lacks of a result.
LACKS = "the table of layers only: it has no spectra, fits, plots or settings, and load cannot bring them back; save to .htsr"


def load(path: str | Path) -> "Analysis | Comparison | pd.DataFrame":
    """Read a result that ``Analysis.save`` or ``Comparison.save`` wrote.

    Args:
        path: A ``.htsr`` file. A ``.json``, ``.csv`` or ``.parquet`` file holds only the table of layers, and a warning says so.

    Returns:
        The analysis or the comparison, with every cell, spectrum and fit as it was saved; nothing is computed anew. For the
        other formats, the table of layers.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If the file is damaged, htsr did not write it, a newer htsr wrote it, the suffix is none of these, or
            pyarrow, which ``htsr[parquet]`` brings, is not there to read a ``.parquet`` file.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import htsr
        >>> a = htsr.analyze({"w": torch.diag(torch.linspace(1, 2, 40))})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = a.save(f"{folder}/a.htsr")
        ...     b = load(kept)
        >>> b.details.equals(a.details)
        True
    """
    path = Path(path)
    match path.suffix.lower():
        case ".htsr":
            return read_result(path)
        case ".json" | ".csv" | ".parquet" as suffix:
            if suffix == ".parquet":
                require_parquet(path)
            table = _table(path)
        case _:
            raise InputError(
                f"{path}: expected a result, that is .htsr, .json, .csv or .parquet, got the suffix {path.suffix!r}"
            )
    warnings.warn(f"{path.name} holds {LACKS}", stacklevel=2)
    return table


def _table(path: Path) -> pd.DataFrame:
    """Return the table of layers in a file of another format."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(io.BytesIO(read_regular(path)))
            if "name" not in table:
                raise KeyError("name")
            return table
        if path.suffix.lower() == ".csv":
            texts = pd.read_csv(io.BytesIO(read_regular(path)), dtype="str", keep_default_na=False)
            names = list(texts)
            rows = [{name: _number(name, text) for name, text in row.items()} for row in texts.to_dict("records")]
        else:
            rows = json.loads(read_regular(path))["details"]
            names = list(rows[0]) if rows else ["name"]
        if "name" not in names:
            raise KeyError("name")
        known = [BY_NAME[name] for name in names if name in BY_NAME]
        present = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return details_frame(present, known)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise InputError(f"{path}: expected a table of layers that htsr saved ({type(err).__name__}: {err})") from err


def _number(name: Any, text: str) -> str | float | int | None:
    """Return the cell that a text of a CSV file spells."""
    if name not in BY_NAME or BY_NAME[name].dtype == "str":
        return text
    return None if not text else float(text) if BY_NAME[name].dtype == "float64" else int(text)
