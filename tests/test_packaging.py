"""What pip makes of the repository: optim/ is htsr.optim in a wheel and in an editable install."""

import ast
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
VENDOR = ROOT / "htsr" / "report" / "vendor"
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
    assert "uPlot" in (outside / "a.html").read_text()


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
    shipped = {
        f"htsr/report/vendor/{path.name}" for path in VENDOR.iterdir() if path.suffix in {".js", ".css", ".LICENSE"}
    }
    assert {name for name in contents[0] if name.startswith("htsr/report/vendor/")} == shipped
    licences = {name.rpartition("/")[2] for name in contents[0] if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", *(path.name for path in VENDOR.glob("*.LICENSE"))}
    assert all(name.startswith(("htsr/", "htsr-")) for name in contents[0])  # neither tests nor notebooks


def test_the_folder_itself_cannot_be_imported():
    result = subprocess.run(
        [sys.executable, "-c", "import optim"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "import htsr.optim" in result.stderr


# The house, from the ground up: a module imports from rooms that stand before its own, lazily or not.
FLOORS = [
    "_version", "text", "labels", "p_values", "errors", "choices", "lazy", "files", "weights", "tails", "spectra", "bulk",
    "plots", "audit", "comparison", "training", "optim", "dynamics", "steering", "compat", "report", "demo", "cli", "__main__",
    "__init__",
]  # fmt: skip
# Imports that point up, inside the methods that a person calls on a result.
UPWARD = {
    ("tails.power_law", "plots"),  # PowerLawFit.plot
    ("audit.analysis", "report"),  # Analysis.save, and how it looks in a notebook
    ("audit.shown", "report"),  # show()
    ("audit.layer", "report"),  # how results look in a notebook
    ("bulk.bulk_fit", "report"),
    ("comparison.layer", "report"),
    ("tails.power_law", "report"),
    ("training.monitor", "report"),
    ("audit.analysis", "compat"),  # Analysis.to_weightwatcher
    ("comparison.compare", "report"),  # Comparison.save
    ("comparison.survey.survey", "report"),  # Survey.save
    ("training.store.history", "report"),  # History.save
    ("training.store.runs", "report"),  # Runs.save
    ("training.monitor", "report"),  # Monitor in a notebook
    ("training.snapshot", "dynamics"),  # the step beside its promise, where a Monitor captures updates
}
# Rooms that may use the optimizer.
OPTIMIZER_USERS = {"demo", "dynamics", "optim", "steering"}


def imports(path):
    """Module that imports and module that is imported, below htsr, for every import that runs."""
    source = ".".join(path.relative_to(ROOT / "htsr").with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    guarded = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for part in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "htsr":
            below = node.module.split(".")[1:]
            yield from ([(source, ".".join(below))] if below else [(source, alias.name) for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("htsr."):
                    yield source, alias.name.removeprefix("htsr.")


def test_arrows_point_down():
    """No module imports from a room above its own, at import time or later, but the methods in UPWARD."""
    used = set()
    for path in (ROOT / "htsr").rglob("*.py"):
        if "optim" in path.relative_to(ROOT / "htsr").parts:
            continue
        for source, target in imports(path):
            room, imported = source.split(".")[0], target.split(".")[0]
            if imported == "optim":
                assert room in OPTIMIZER_USERS, f"{source} imports {target}"
            if (source, imported) in UPWARD:
                used.add((source, imported))
                continue
            assert FLOORS.index(imported) <= FLOORS.index(room), f"{source} imports {target}"
    assert used == UPWARD, "an exception that no import needs"


def test_the_run_directory_knows_nothing_of_monitors():
    for path in (ROOT / "htsr" / "training" / "store").glob("*.py"):
        for source, target in imports(path):
            assert not target.startswith("training.") or target.startswith("training.store."), f"{source}: {target}"
