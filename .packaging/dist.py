"""Build the sdist and the wheel into dist/, from the tracked files that a package needs and no others.

A package index shows README.md, where a relative link leads nowhere: links and pictures get the address of ``Repository`` in
``project.urls``, at the tag of the version.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# setuptools would add some files of tests/, and an sdist with half of the tests is of no use to anybody.
PACKED = ("pyproject.toml", "README.md", "LICENSE", "htsr", "optim")


def with_absolute_links(text: str, repository: str, version: str) -> str:
    """Return Markdown whose relative links and pictures, outside of code blocks, lead to the tag of a version."""

    def address(target: str, *, picture: bool) -> str:
        return f"{repository.rstrip('/')}/{'raw' if picture else 'blob'}/v{version}/{target}"

    relative = r"(?![a-z]+:|#|/)"
    parts = re.split(r"(^```.*?^```$|`[^`\n]*`)", text, flags=re.DOTALL | re.MULTILINE)
    for number in range(0, len(parts), 2):  # code stands between them
        prose = re.sub(
            rf"(!\[[^]]*)?\]\({relative}([^)\s]+)\)",
            lambda found: f"{found[1] or ''}]({address(found[2], picture=bool(found[1]))})",
            parts[number],
        )
        parts[number] = re.sub(
            rf'\b(src|srcset|href)="{relative}([^"]+)"',
            lambda found: f'{found[1]}="{address(found[2], picture=found[1] != "href")}"',
            prose,
        )
    return "".join(parts)


def copy_packed(target: Path) -> None:
    """Copy the tracked files that go into a package, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PACKED], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def main() -> None:
    """Build both."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_packed(tree)
        version = re.search('__version__ = "(.+)"', (tree / "htsr" / "_version.py").read_text())[1]
        urls = tomllib.loads((tree / "pyproject.toml").read_text())["project"].get("urls", {})
        if "Repository" in urls:
            readme = tree / "README.md"
            readme.write_text(with_absolute_links(readme.read_text(), urls["Repository"], version))
        else:
            print(
                "pyproject.toml names no Repository in project.urls: links of the README stay relative", file=sys.stderr
            )
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", ROOT / "dist", tree]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
    print(*(path.name for path in sorted((ROOT / "dist").iterdir())), sep="\n")


if __name__ == "__main__":
    main()
