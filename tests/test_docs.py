"""README.md and docs/: the examples run, the commands are real, the links lead somewhere, the columns are complete."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from htsr import Monitor
from htsr.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def shell_lines(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(text, "sh") for line in block.splitlines() if line]


def heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the shown commands name."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"first": torch.nn.Linear(64, 64), "rnn": torch.nn.LSTM(64, 64)})
    (tmp_path / "checkpoint_dir").mkdir()
    for name in ("model", "base", "tuned", "checkpoint_dir/model"):
        save_file(
            {key: tensor + 0.01 * torch.randn_like(tensor) for key, tensor in model.state_dict().items()},
            f"{name}.safetensors",
        )
    for name in ("first", "second"):
        with Monitor(model, run_dir=f"runs/{name}") as monitor:
            monitor.step(loss=1.0)


@pytest.mark.parametrize("page", TEXTS)
def test_examples_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, example in enumerate(blocks(TEXTS[page], "python"), start=1):
        exec(compile(example, f"{page}, example {number}", "exec"), namespace)


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if "\nhtsr " in text])
def test_commands_of_htsr_run(page, workplace):
    for command in shell_lines(TEXTS[page]):
        if command[0] == "htsr":
            arguments = command[1 : command.index(">")] if ">" in command else command[1:]
            expected = (0, 1) if "--fail-on" in command else (0,)
            assert main(arguments) in expected, command


def test_other_commands_are_those_of_the_makefile_and_pip():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    others = [command for text in TEXTS.values() for command in shell_lines(text) if command[0] != "htsr"]
    assert others
    for program, argument, *_ in others:
        assert (program == "make" and argument in targets) or (program, argument) == ("pip", "install")


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_scripts_exist(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        path, _, anchor = target.partition("#")
        assert target.startswith("https:") or (folder / path).exists(), target
        if anchor:
            assert anchor in heading_anchors((folder / path).read_text(encoding="utf-8")), target
    for script in re.findall(r"`python (\S+\.py)", TEXTS[page]):
        assert (ROOT / script).exists(), script


def test_every_page_is_linked_from_the_readme():
    for page in TEXTS:
        assert page == "README.md" or f"]({page})" in TEXTS["README.md"], page


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_columns_are_those_of_the_code():
    assert TEXTS["docs/columns.md"] == runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"](), (
        "run: python docs/generate.py"
    )
