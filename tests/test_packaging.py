"""What pip makes of the repository: optim/ is htsr.optim in a wheel and in an editable install."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = """
import htsr, htsr.optim, sys
assert htsr.optim.HTMuon.__module__ == "htsr.optim.htmuon", htsr.optim.HTMuon.__module__
assert "optim" not in sys.modules
print(htsr.__file__)
"""


@pytest.fixture
def checkout(tmp_path):
    """The tracked and new files of the repository, as a clone has them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    target = tmp_path / "checkout"
    for name in listed.stdout.splitlines():
        source, destination = ROOT / name, target / name
        if not source.is_symlink() and not source.exists():
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, destination, follow_symlinks=False)
    return target


def fresh_environment(path: Path) -> Path:
    """An environment that has this one's dependencies, but none of its editable installs."""
    venv.create(path, with_pip=True, symlinks=True)
    python = path / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # Python 3.11 puts an old setuptools into new environments, in front of the one that the build asks for.
    subprocess.run(
        [python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"], check=True, capture_output=True
    )
    Path(purelib.stdout.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def pip_install(python: Path, *arguments: str) -> None:
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--force-reinstall",
        *arguments,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)


def run(*command: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_package_is_listed():
    """setuptools finds no package by itself in this layout, so the list must be whole."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {"htsr.optim"} | {
        ".".join(init.parent.relative_to(ROOT).parts)
        for init in (ROOT / "htsr").rglob("__init__.py")
        if "optim" not in init.parts
    }
    assert listed == there


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installed_package_works(checkout, tmp_path, kind):
    python = fresh_environment(tmp_path / "venv")
    pip_install(python, *(["--editable"] if kind == "editable" else []), str(checkout))
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    where = run(python, "-c", CHECK, cwd=outside).strip()
    assert (str(checkout) in where) == (kind == "editable")
    run(python, "-c", CHECK, cwd=checkout)  # the symlink serves the repository root
    assert "audit" in run(python.parent / "htsr", "--help", cwd=outside)
    assert "audit" in run(python, "-m", "htsr", "--help", cwd=outside)
    page = "import htsr, torch; htsr.analyze({'w': torch.randn(30, 20)}).save('a.html')"
    run(python, "-c", page, cwd=outside)  # templates travel with the package
    assert "<svg" in (outside / "a.html").read_text()


@pytest.mark.slow
def test_a_checkout_without_symlinks_builds_the_same_wheel(checkout, tmp_path):
    """Where git cannot make symlinks, htsr/optim is a small text file."""
    contents = []
    for name in ("with", "without"):
        if name == "without":
            (checkout / "htsr" / "optim").unlink()
            (checkout / "htsr" / "optim").write_text("../optim")
        shutil.rmtree(checkout / "build", ignore_errors=True)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "wheel",
                "--quiet",
                "--no-deps",
                "--no-build-isolation",
                "-w",
                tmp_path / name,
                checkout,
            ],
            check=True,
        )
        (wheel,) = (tmp_path / name).glob("htsr-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            contents.append(sorted(n for n in archive.namelist() if not n.endswith("RECORD")))
    assert contents[0] == contents[1]
    for expected in ("htsr/optim/htmuon.py", "htsr/report/base.html.j2", "htsr/py.typed"):
        assert expected in contents[0]
    assert not any(name.startswith("optim/") for name in contents[0])


def test_the_folder_itself_cannot_be_imported():
    result = subprocess.run(
        [sys.executable, "-c", "import optim"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "import htsr.optim" in result.stderr


def test_arrows_point_down():
    """No module imports from a room above its own at import time, and htsr never imports htsr.optim but in the demo."""
    order = [
        "errors",
        "_version",
        "progress",
        "files",
        "devices",
        "threads",
        "lapack",
        "weights",
        "spectrum",
        "distances",
        "metrics",
        "tails",
        "bulk",
        "vectors",
        "phases",
        "findings",
        "columns",
        "layer_analysis",
        "journal",
        "jobs",
        "conditions",
        "analysis",
        "layer_comparison",
        "compare",
        "crosscheck",
        "compat",
    ]
    order += ["training", "plots", "report", "demo", "cli", "__main__", "__init__"]
    rank = {room: i for i, room in enumerate(order)}
    for path in (ROOT / "htsr").rglob("*.py"):
        parts = path.relative_to(ROOT / "htsr").parts
        if parts[0] == "optim":
            continue
        room = parts[0].removesuffix(".py")
        for line in path.read_text().splitlines():
            if not line.startswith(("from htsr", "import htsr")):  # indented imports are local or for type checkers
                continue
            imported = (line.split()[1] + ".").split(".")[1] or line.split()[3]
            if imported == "optim":
                assert room == "demo", f"{path}: {line}"
            else:
                assert rank[imported] <= rank[room], f"{path}: {line}"
