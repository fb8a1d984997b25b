"""Keep what a file says about itself, within bounds."""

import itertools
from collections.abc import Mapping

from htsr.text import encodable

# Strangers write this text, of any length; whoever needs all of it reads the file.
MAX_ENTRIES, MAX_KEY, MAX_VALUE = 64, 100, 1000


def bounded_metadata(said: Mapping[str, object]) -> dict[str, str]:
    """Return the first entries of a file's metadata as text, with the end of long ones cut."""
    first = itertools.islice(said.items(), MAX_ENTRIES)
    return {_cut(encodable(key), MAX_KEY): _cut(encodable(str(value)), MAX_VALUE) for key, value in first}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
