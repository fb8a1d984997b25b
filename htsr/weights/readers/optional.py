"""Import the optional libraries that some formats need."""

import importlib
from types import ModuleType

from htsr.errors import InputError


def import_optional(module: str, extra: str, source: object) -> ModuleType:
    """Import a library, or raise InputError with the extra of htsr that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise InputError(
            f"{source}: reading it needs the library {module.split('.')[0]}, which is not installed: pip install 'htsr[{extra}]'"
        ) from err
