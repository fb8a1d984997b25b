"""What index, GitHub, pre-commit, conda and Docker read: it agrees with pyproject.toml, and the action does what it says."""

import os
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib

import pytest
import yaml

from htsr import __version__
from htsr.cli.main import main
from htsr.weights.readers.formats import BY_SUFFIX
from tests.test_packaging import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIST = runpy.run_path(str(ROOT / ".packaging" / "dist.py"))
PYTHONS = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[a](docs/a.md#part)", "[a](H/blob/v1/docs/a.md#part)"),
        ("![a b](x/y.png) [c](z)", "![a b](H/raw/v1/x/y.png) [c](H/blob/v1/z)"),
        ("[![p](p.svg)](LICENSE)", "[![p](H/raw/v1/p.svg)](H/blob/v1/LICENSE)"),
        ('<img src="a.png"><a href="b.md">', '<img src="H/raw/v1/a.png"><a href="H/blob/v1/b.md">'),
        ("[a](https://b.c/d) [e](#f) [g](mailto:h)", None),
        ("```python\nx[0](y)\n```\n`m[1](z)`\n", None),
    ],
)
def test_links_for_an_index_are_absolute(given, expected):
    assert DIST["with_absolute_links"](given, "H", "1") == (given if expected is None else expected)


def test_the_readme_for_an_index_has_no_relative_link():
    text = DIST["with_absolute_links"]((ROOT / "README.md").read_text(), "https://host/htsr/", __version__)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)]+)\)", prose) + re.findall(r'(?:src|href)="([^"]+)"', prose)
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert f"https://host/htsr/raw/v{__version__}/" in text


@pytest.mark.slow
def test_the_sdist_holds_what_a_package_needs(tmp_path):
    DIST["copy_packed"](tmp_path / "tree")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", tmp_path, tmp_path / "tree"]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(tmp_path / f"htsr-{__version__}.tar.gz") as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert top == {*DIST["PACKED"], "PKG-INFO", "setup.cfg", "htsr.egg-info"}


def test_every_file_names_the_same_version():
    assert read("CITATION.cff")["version"] == __version__
    assert read(".packaging/conda/recipe.yaml")["context"]["version"] == __version__


def test_the_recipe_has_the_dependencies_of_the_project():
    renamed = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    needed = {re.sub(r"^[\w-]+", lambda name: renamed.get(name[0], name[0]), item) for item in PROJECT["dependencies"]}
    recipe = read(".packaging/conda/recipe.yaml")
    python, *others = recipe["requirements"]["run"]
    assert {item.replace(" ", "") for item in others} == needed
    assert python == "python >=${{ python_min }}"
    assert PROJECT["requires-python"] == f">={recipe['context']['python_min']}"
    (command,) = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(command)]


def test_the_workflow_runs_the_oldest_and_the_newest_python():
    job = read(".github/workflows/check.yml")["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_extras_hold_each_other_whole():
    """An extra that a message names exists, and dev brings all that tests need."""
    extras = set(PROJECT["optional-dependencies"])
    texts = [path.read_text() for path in (ROOT / "htsr").rglob("*.py")]
    named = {name for text in texts for found in re.findall(r"htsr\[([\w,-]+)\]", text) for name in found.split(",")}
    assert named <= extras
    (of_dev,) = [item for item in PROJECT["optional-dependencies"]["dev"] if item.startswith("htsr[")]
    in_formats = set(re.findall(r"\w+", PROJECT["optional-dependencies"]["formats"][0])) - {"htsr"}
    assert set(re.findall(r"\w+", of_dev)) - {"htsr"} | in_formats == extras - {"demo", "dev"}


@pytest.mark.parametrize("status", [0, 1, 2])
@pytest.mark.parametrize("given", [{}, {"fail-on": "alpha > 8\nstatus == 'failed'\n", "output": "a b.html\nc.json"}])
def test_the_action_passes_on_inputs_and_status(tmp_path, status, given):
    program = tmp_path / "htsr" / "bin" / "htsr"
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" > "{tmp_path}/seen"\necho verdict > "${{2#--output=}}"\nexit {status}\n'
    )
    program.chmod(0o755)
    inputs = {name: str(item.get("default", "")) for name, item in ACTION["inputs"].items()} | {"path": "-x.pt"} | given
    audit = ACTION["runs"]["steps"][1]
    environment = {name: inputs[re.search(r"inputs\.([\w-]+)", value)[1]] for name, value in audit["env"].items()}
    for name, file in {"RUNNER_TEMP": "", "GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "summary"}.items():
        environment[name] = str(tmp_path / file)
    result = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", audit["run"]], env=os.environ | environment, capture_output=True, check=False
    )
    assert result.returncode == status, result.stderr
    command, *arguments = (tmp_path / "seen").read_text().splitlines()
    assert command == "audit"
    conditions = [f"--fail-on={line}" for line in given.get("fail-on", "").splitlines()]
    outputs = [f"--output={line}" for line in given.get("output", "").splitlines()]
    assert arguments == [f"--output={tmp_path}/htsr-summary.md", *conditions, *outputs, "--", "-x.pt"]
    assert (tmp_path / "out").read_text() == f"status={status}\n"
    assert (tmp_path / "summary").read_text() == "verdict\n"


def test_no_step_pastes_an_input_into_a_script():
    assert not any("${{" in step["run"] for step in ACTION["runs"]["steps"])


def test_the_hook_is_a_command_of_htsr(tmp_path, capsys):
    (hook,) = read(".pre-commit-hooks.yaml")
    arguments = ["missing.pt", "--fail-on", "alpha > 8"]  # those that its comment shows
    assert main([*hook["entry"].split()[1:], *arguments]) == 2
    assert "missing.pt" in capsys.readouterr().err
    files = re.compile(hook["files"])
    assert all(files.search(f"folder/model{suffix}") for suffix in BY_SUFFIX)
