"""README.md and docs/: the examples run, the commands are real, the links lead somewhere, what code writes is today's."""

import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr import Monitor
from htsr.cli import main
from htsr.demo.run import trained_transformer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


TORCH_WITHOUT_CUDA = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


def tool(path: str):
    """A module of docs/, which is no package."""
    sys.path.insert(0, str((ROOT / "docs" / path).parent))
    try:
        return importlib.import_module(Path(path).stem)
    finally:
        del sys.path[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


COMMANDS = {
    re.sub(r"\s+# .*", "", line)
    for text in TEXTS.values()
    for block in blocks(text, "sh")
    for line in block.splitlines()
}

COMMANDS_OF_HTSR = sorted(line for line in COMMANDS if line.startswith("htsr "))


def heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def arguments_of(command: str) -> list[str]:
    return shlex.split(re.sub(r" > [\w.]+$", "", command))[1:]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files that the shown commands name."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"first": torch.nn.Linear(32, 32), "rnn": torch.nn.LSTM(32, 32)})
    (folder / "checkpoint_dir").mkdir()
    for name in ("model", "base", "tuned", "checkpoint_dir/model"):
        weights = {key: tensor + 0.01 * torch.randn_like(tensor) for key, tensor in model.state_dict().items()}
        save_file(weights, folder / f"{name}.safetensors")
    for name in ("first", "second"):
        with Monitor(model, run_dir=folder / "runs" / name) as monitor:
            monitor.step(loss=1.0)
    return folder


@pytest.mark.parametrize("page", TEXTS)
def test_examples_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, example in enumerate(blocks(TEXTS[page], "python"), start=1):
        exec(compile(example, f"{page}, example {number}", "exec"), namespace)


@pytest.mark.parametrize("command", COMMANDS_OF_HTSR)
def test_commands_of_htsr_parse(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # an empty folder: unknown options leave by SystemExit, missing files by the status
    needs_no_file = arguments_of(command)[0] == "explain"
    assert main(arguments_of(command)) == (0 if needs_no_file else 2)
    assert "condition" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS_OF_HTSR)
def test_commands_of_htsr_run(command, files, monkeypatch):
    monkeypatch.chdir(files)
    assert main(arguments_of(command)) in ((0, 1) if "--fail-on" in command else (0,))


def test_other_commands_are_those_of_the_makefile_and_pip():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    allowed = {"pip install .", TORCH_WITHOUT_CUDA, *(f"make {target}" for target in targets)}
    others = COMMANDS - set(COMMANDS_OF_HTSR)
    assert others
    assert others <= allowed


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_scripts_exist(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        path, _, anchor = target.partition("#")
        assert target.startswith("https:") or (folder / path).exists(), target
        if anchor:
            text = (folder / path).read_text(encoding="utf-8") if path else TEXTS[page]
            assert anchor in heading_anchors(text), target
    for script in re.findall(r"`python (\S+\.py)", TEXTS[page]):
        assert (ROOT / script).exists(), script


def test_every_page_has_a_place_in_the_contents():
    contents = [
        name for block in blocks(TEXTS["docs/index.md"], "{toctree}") for name in block.split("\n\n")[-1].split()
    ]
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in TEXTS} - {"README.md", "README", "index"}
    assert sorted(name for name in contents if "/" not in name) == sorted(pages)
    assert "](docs/index.md)" in TEXTS["README.md"]


@pytest.mark.parametrize("page", TEXTS)
def test_pages_are_short(page):
    longest = {"README.md": 130, "docs/explanations.md": 300}  # of explanations one reads a section
    assert len(TEXTS[page].splitlines()) <= longest.get(page, 210)


@pytest.mark.parametrize("page", TEXTS)
def test_what_the_code_writes_is_todays(page):
    generate = tool("generate.py")
    written = {"docs/columns.md": generate.page, "docs/explanations.md": generate.explanations}
    expected = written[page]() if page in written else generate.filled(TEXTS[page])
    assert TEXTS[page] == expected, "run: python docs/generate.py"


def test_the_reference_documents_every_public_name():
    reference = tool("_extensions/api_pages.py")
    slow_to_import = ("htsr.training.lightning", "htsr.training.transformers")
    named = reference.groups({name: title for name, title in reference.PACKAGES.items() if name not in slow_to_import})
    assert {f"htsr.{name}" for name in htsr.__all__} <= {name for names in named.values() for name in names}
    for name in (name for names in named.values() for name in names):
        item = reference.item_of(name)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert inspect.getdoc(item), name
        for member in reference.members(item) if inspect.isclass(item) else ():
            assert inspect.getdoc(getattr(item, member)), f"{name}.{member}"


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("watching", "[a](../benchmarks/results/widths.md#b)", "[a](measurements/widths.md#b)"),
        ("watching", "![a](../benchmarks/results/demo.png)", "![a](measurements/demo.png)"),
        ("watching", "[a](../SECURITY.md)", "[a](project/SECURITY.md)"),
        ("watching", "[a](noise.md)", "[a](noise.md)"),
        ("watching", "[a](../htsr/cli/audit.py)", "a"),  # the site has no page for code
        ("watching", "[a](https://arxiv.org) [b](#c)", "[a](https://arxiv.org) [b](#c)"),
        ("project/CONTRIBUTING", "[a](docs/noise.md)", "[a](../noise.md)"),
        ("measurements/widths", "[a](../../docs/noise.md)", "[a](../noise.md)"),
        ("notebooks/02_noise", '{"cells": [{"cell_type": "markdown", "source": ["[a](../docs/noise.md)"]}]}',
         '{"cells": [{"cell_type": "markdown", "source": "[a](../noise.md)"}]}'),
    ],
)  # fmt: skip
def test_links_of_the_repository_become_links_of_the_site(page, text, expected):
    source = [text]
    tool("_extensions/repository_files.py").rewrite_links(None, page, source)
    assert source == [expected]


def test_a_gallery_shows_each_figure_that_a_block_gives_once():
    block = """
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
figure, ax = plt.subplots()
ax.plot([1, 2])
ax
other = Figure()
other.subplots(1, 2)
len("no picture")
"""
    namespace = {}
    figures = tool("_extensions/pictures.py").figures_of(block, namespace)
    namespace["plt"].close("all")
    assert figures == [namespace["figure"], namespace["other"]]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/start.md", "docs/auditing.md"])
def test_the_verdict_that_pages_show_is_todays(page):
    audit = htsr.analyze(trained_transformer())
    shown = next(block for block in blocks(TEXTS[page], "text") if "pooler.dense" in block)
    sentences = " ".join(shown.partition("\n\n")[0].split()).split(" ...")
    assert len(sentences) > 1
    assert all(part.strip(" ;") in audit.verdict for part in sentences)
    assert (
        "pooler.dense                          dense       384  384  12.35" not in shown
        or round(audit["pooler.dense"].row["alpha"], 2) == 12.35
    )
