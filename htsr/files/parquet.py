"""Parquet needs pyarrow, a large library that is installed only with an extra."""

from importlib.util import find_spec
from pathlib import Path

from htsr.errors import InputError


def require_parquet(path: Path) -> None:
    """Raise InputError with the extra of htsr that installs pyarrow, unless it is installed; this does not load it."""
    if find_spec("pyarrow") is None:
        raise InputError(
            f"{path}: Parquet needs the library pyarrow, which is not installed: pip install 'htsr[parquet]', "
            "or choose another suffix"
        )
