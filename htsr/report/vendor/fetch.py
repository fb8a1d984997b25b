"""Fetch the parts of our pages that other people wrote: ``python htsr/report/vendor/fetch.py`` writes them beside this file.

With ``--check``, it compares them byte by byte instead. npm downloads each package from the registry that it is
configured for, and the archive must have the SHA-512 that stands below. To move to a newer version, change the version
and copy the integrity from ``npm view NAME@VERSION dist.integrity``.
"""

import argparse
import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Part(NamedTuple):
    """A package of npm, and the files that we keep of it."""

    name: str
    version: str
    integrity: str
    files: dict[str, str]  # path in the package -> name beside this script


PARTS = [
    Part(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {
            "dist/uPlot.iife.min.js": "uPlot.iife.min.js",
            "dist/uPlot.min.css": "uPlot.min.css",
            "dist/uPlot.d.ts": "uPlot.d.ts",  # for the type check of our own script; wheels leave it out
            "LICENSE": "uPlot.LICENSE",
        },
    ),
]


def contents(part: Part) -> dict[str, bytes]:
    """Return the files of a part as the registry has them, by the names that they have beside this script."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", f"{part.name}@{part.version}", "--pack-destination", folder, "--ignore-scripts"]
        try:
            subprocess.run([*command, "--fetch-retries=0"], check=True, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as err:
            reason = getattr(err, "stderr", None) or str(err)
            raise ConnectionError(f"npm cannot fetch {part.name} {part.version}: {reason}") from err
        (archive,) = Path(folder).iterdir()
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != part.integrity:
            raise ValueError(f"{part.name} {part.version} should have the integrity {part.integrity}; it has {found}")
        with tarfile.open(archive) as package:
            members = {kept: package.extractfile(f"package/{path}") for path, kept in part.files.items()}
            return {kept: file.read() for kept, file in members.items() if file is not None}


def main() -> int:
    """Write or compare every file; return 1 if a file or an archive differs, and 2 if npm cannot fetch a package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    try:
        files = {name: data for part in PARTS for name, data in contents(part).items()}
    except ConnectionError as err:
        print(err, file=sys.stderr)
        return 2
    except ValueError as err:
        print(err, file=sys.stderr)
        return 1
    differing = [n for n, data in files.items() if not (HERE / n).is_file() or (HERE / n).read_bytes() != data]
    for name in differing:
        if not check:
            (HERE / name).write_bytes(files[name])
        print(f"{name} {'differs from the registry' if check else 'written'}", file=sys.stderr)
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
