"""The parts of our pages that other people wrote are what the registry has, with their licences."""

import subprocess
import sys

import pytest

from tests.test_packaging import ROOT, VENDOR


def test_files_are_the_registrys():
    command = [sys.executable, VENDOR / "fetch.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 2:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", sorted(VENDOR.glob("*.js")), ids=lambda path: path.name)
def test_a_script_has_its_licence_beside_it(script):
    licence = script.with_name(f"{script.name.split('.')[0]}.LICENSE")
    assert "permission notice shall be included in" in licence.read_text()
