"""Readers of some formats come with optional libraries."""

import importlib
from types import ModuleType

from htsr.errors import InputError


def import_optional(module: str, extra: str, source: object) -> ModuleType:
    """Import a library that an extra installs.

    Args:
        module: What to import.
        extra: The extra of htsr that installs it.
        source: What is to be read with it, for the message.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise InputError(
            f"{source}: reading it takes the library {module.split('.')[0]}, which is not installed: pip install 'htsr[{extra}]'"
        ) from err
