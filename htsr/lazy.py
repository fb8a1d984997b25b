"""Names of a package that load their modules on first use (PEP 562)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package that hands on names from its modules.

    ``modules`` maps each module, relative to the package, to the names that come from it. No name may equal that of a module
    of the package, because importing the module would replace the name in the package. Every module of the package can be
    reached as an attribute too, as if it had been imported.
    """
    homes = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def attribute(name: str) -> object:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        elif not name.startswith("_") and find_spec(f"{package}.{name}"):
            value = import_module(f"{package}.{name}")
        else:
            message = f"module {package!r} has no attribute {name!r}{_suggestion(name, names())}"
            raise AttributeError(message, name=name)  # with obj= as well, Python would add a suggestion of its own
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        from pkgutil import iter_modules

        module = sys.modules[package]
        found = [item.name for item in iter_modules(module.__path__) if not item.name.startswith("_")]
        return sorted({*vars(module), *homes, *found})

    return attribute, names


def _suggestion(name: str, known: Sequence[str]) -> str:
    """Return a question that names the known public name closest to a misspelt one, or an empty text if none is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, [item for item in known if not item.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
