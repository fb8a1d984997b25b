"""The JavaScript of our pages is typed, by JSDoc, and stays short."""

import subprocess

import pytest

from tests.test_packaging import ROOT

PROJECT = ROOT / "tests" / "report" / "typescript"
COMPILER = PROJECT / "node_modules" / ".bin" / "tsc"
SCRIPTS = sorted((ROOT / "htsr" / "report" / "page").glob("*.js"))


def test_types_hold():
    if not COMPILER.exists():
        pytest.skip(f"TypeScript is not installed (npm ci --prefix {PROJECT.relative_to(ROOT)})")
    result = subprocess.run([COMPILER, "-p", PROJECT, "--listFiles"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if not line.startswith("/"))
    assert {str(path) for path in SCRIPTS} <= set(result.stdout.splitlines())


def test_our_own_script_stays_short():
    """What other people wrote stands in htsr/report/vendor/."""
    lines = {path.name: len(path.read_text().splitlines()) for path in SCRIPTS}
    assert 0 < sum(lines.values()) < 1000, lines
    assert max(len(line) for path in SCRIPTS for line in path.read_text().splitlines()) <= 130
