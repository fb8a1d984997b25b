"""What a kept result says of itself: what was audited, how, when, and with which versions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from htsr._version import __version__
from htsr.audit.files_read import Stamp, digests
from htsr.weights.inventory import Inventory

# The settings of the analysis of a change, B - A, of which nobody should say that it was trained.
OF_CHANGE: Mapping[str, str] = {"quantity": "change"}
PACKAGES = ("torch", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return the versions that decide the numbers."""
    return {"htsr": __version__, "python": platform.python_version(), **{name: _version_of(name) for name in PACKAGES}}


@cache
def _version_of(package: str) -> str:
    """Return the version of a package; reading it takes ten milliseconds."""
    return version(package)


@dataclass(frozen=True)
class About:
    """What an analysis says of itself.

    Attributes:
        source: What was analysed, in words.
        state: The optimizer state that was analysed; empty for weights.
        metadata: What the file says about itself.
        convention: ``"htsr"`` or ``"weightwatcher"``.
        num_params_analyzed: Parameters in the rows, tied ones once.
        num_params_skipped: Parameters of the tensors that were skipped.
        settings: The options of ``analyze`` that were not at their defaults, as JSON knows them.
        versions: Versions of htsr, Python and the packages that decide the numbers.
        time: When the analysis was made, UTC.
        command: The command line that made it; empty if Python did.
        files: BLAKE2b digest of every file that was read, by path; empty for a model in memory, and before ``hashed``.
    """

    source: str
    state: str
    metadata: Mapping[str, str]
    convention: str
    num_params_analyzed: int
    num_params_skipped: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    _stamps: Mapping[Path, Stamp] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        inventory: Inventory,
        convention: str = "htsr",
        settings: Mapping[str, Any] | None = None,
        stamps: Mapping[Path, Stamp] | None = None,
    ) -> "About":
        """Return what is known once an inventory is made; ``stamps`` are the files that are read for it."""
        return cls(
            inventory.source,
            inventory.state,
            dict(inventory.metadata),
            convention,
            sum(layer.num_params for layer in inventory.layers),
            sum(item.num_params for item in inventory.skipped),
            settings or {},
            _stamps=stamps or {},
        )

    def hashed(self) -> "About":
        """Return the same with the digests of the files; a file that changed since the analysis has none, and says so."""
        return replace(self, files=digests(self._stamps), _stamps={}) if self._stamps else self


def plain_settings(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults as JSON knows them; what JSON does not know, as a text."""
    return {
        name: _plain(value)
        for name, value in options.items()
        if not (value is defaults[name] or value == defaults[name])
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(getattr(value, "pattern", value))
