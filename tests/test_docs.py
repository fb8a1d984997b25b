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
    allowed = {"pip install .", *(f"make {target}" for target in targets)}
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
