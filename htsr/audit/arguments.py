"""Checks of arguments that several functions take."""

from numbers import Integral
from typing import get_args

from htsr.choices import Null


def check_whole_number(name: str, value: object, least: int | None = None) -> int:
    """Return the argument, or raise ``TypeError`` if it is not a whole number and ``ValueError`` if it is below ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {name} to be a whole number, got {type(value).__name__} {value!r}")
    if least is not None and value < least:
        raise ValueError(f"expected {name} to be a whole number from {least} on, got {value!r}")
    return int(value)


def check_null(null: object) -> None:
    """Raise a ``ValueError`` unless ``null`` is one of the kinds of noise."""
    if null not in get_args(Null):
        raise ValueError(f"expected null to be one of {', '.join(get_args(Null))}, got {null!r}")
