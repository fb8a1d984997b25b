"""What an import loads, and names that load on first use."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import htsr
from tests.test_packaging import ROOT

# Libraries that take a noticeable part of a second to load and are not needed until somebody uses what needs them.
HEAVY = {
    "torch", "numpy", "pandas", "scipy", "matplotlib", "pyarrow", "jinja2", "joblib", "tqdm", "powerlaw", "weightwatcher",
    "torch.distributed.checkpoint", "safetensors", "transformers", "lightning", "h5py", "onnx", "gguf", "fsspec",
}  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running some code."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(result.stderr.splitlines()[-1]))


@pytest.fixture(scope="module")
def of_torch() -> set[str]:
    return loaded_by("import torch")


PARSED = """
from htsr.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "import htsr",
        "import htsr.report, htsr.training",
        "import htsr; dir(htsr); hasattr(htsr, 'analyse')",
        *(PARSED.format(arguments=[*command, "--help"])
          for command in ([], ["audit"], ["compare"], ["survey"], ["report"], ["watch"], ["demo"])),
        PARSED.format(arguments=["--version"]),
        PARSED.format(arguments=["audit", "model.safetensors", "--conv", "fold"]),
    ],
)  # fmt: skip
def test_nothing_heavy_is_loaded(code):
    assert not loaded_by(code) & HEAVY


def test_the_optimizer_loads_torch_and_nothing_else_that_is_heavy(of_torch):
    assert not (loaded_by("from htsr.optim import HTMuon") - of_torch) & HEAVY


def test_an_audit_loads_what_every_audit_needs(of_torch):
    loaded = loaded_by("import htsr; htsr.analyze") - of_torch
    assert loaded & HEAVY <= {
        "numpy",
        "pandas",
        "pyarrow",
        "scipy",
        "safetensors",
    }  # pandas loads pyarrow itself, if it is there
    assert not loaded & {"scipy.stats", "scipy.optimize", "scipy.spatial"}


def packages():
    """Packages whose names load on first use."""
    for path in sorted((ROOT / "htsr").rglob("__init__.py")):
        if "lazy_names(" in path.read_text():
            yield ".".join(path.parent.relative_to(ROOT).parts)


@pytest.mark.parametrize("name", list(packages()))
def test_lazy_names_are_those_that_editors_see(name):
    package = importlib.import_module(name)
    tree = ast.parse(Path(package.__file__).read_text())
    (guard,) = [node for node in tree.body if isinstance(node, ast.If)]
    (mapping,) = [node for node in ast.walk(guard) if isinstance(node, ast.Dict)]
    seen = {
        node.module.removeprefix(f"{name}."): {alias.name for alias in node.names}
        for node in guard.body
        if isinstance(node, ast.ImportFrom) and node.module != name
    }
    assert {module: set(names) for module, names in ast.literal_eval(mapping).items()} == seen
    assert set().union(*seen.values()) <= set(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for item in package.__all__:
        assert getattr(package, item) is not None
    modules = {path.stem for path in Path(package.__file__).parent.iterdir()}
    assert not modules & set().union(*seen.values()), "importing the module would replace the name"


def test_rooms_and_the_optimizer_are_attributes():
    code = "import htsr; print(htsr.optim.HTMuon.__module__, htsr.tails.hill.__name__, htsr.training.store.__name__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["htsr.optim.htmuon", "hill", "htsr.training.store"]
    assert {"optim", "analyze", "weights"} <= set(dir(htsr))


def test_a_star_import_brings_every_public_name():
    names: dict[str, object] = {}
    exec("from htsr import *", names)
    assert set(htsr.__all__) <= set(names)


@pytest.mark.parametrize(
    ("package", "name", "close"),
    [("htsr", "analyse", "analyze"), ("htsr", "optimm", "optim"), ("htsr.training", "Histori", "History")],
)
def test_an_unknown_name_is_answered_with_a_close_one(package, name, close):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute '{name}'; did you mean '{close}'"):
        getattr(importlib.import_module(package), name)


def test_an_unknown_name_without_a_close_one():
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        _ = htsr.zzz


def test_a_module_that_fails_to_load_says_so(tmp_path):
    """An ImportError inside a module of the package is not turned into a missing attribute."""
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text(
        "from htsr.lazy import lazy_names\n__getattr__, __dir__ = lazy_names(__name__, {'broken': ['name']})\n"
    )
    (room / "broken.py").write_text("import no_such_library\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import room; room.name"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "No module named 'no_such_library'" in result.stderr
