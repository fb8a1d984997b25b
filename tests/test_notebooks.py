"""Every notebook asks a question, uses the public API only, and still shows the outputs that it keeps."""

import ast
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import htsr
import htsr.optim
import htsr.plots
import htsr.training
from notebooks.execute import differences, executed, notebooks

NOTEBOOKS = notebooks()
PUBLIC = {module.__name__: set(module.__all__) for module in (htsr, htsr.optim, htsr.plots, htsr.training)}
PUBLIC["htsr"] |= {"plots", "training"}
PUBLIC["htsr.demo.run"] = {"trained_transformer"}  # the docs use it, too
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.slow
@every_notebook
def test_kept_outputs_are_those_of_today(path, minilm):
    assert not differences(nbformat.read(path, as_version=4), executed(path))


def test_there_are_eight():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"0{number}" for number in range(1, 9)]


@every_notebook
def test_a_notebook_reads_as_one(path):
    notebook = nbformat.read(path, as_version=4)
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    assert re.match(r"# .*\?$", first.splitlines()[0]), "the title is a question"
    assert "## What to try next" in last
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    assert code[0].outputs, "it begins with something to see"
    assert 2 <= sum("image/png" in output.get("data", {}) for output in outputs) <= 7
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert path.stat().st_size < 400_000
    assert "site-packages" not in path.read_text()
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert any(target.startswith("../docs/") for target in targets)
    assert all((path.parent / target).exists() for target in targets), targets


@every_notebook
def test_a_notebook_uses_public_names(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source if cell.cell_type == "code" else "")):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("htsr"):
                assert {name.name for name in node.names} <= PUBLIC[node.module], node.module
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "htsr":
                assert node.attr in PUBLIC["htsr"]


def _shows(*outputs, source="show()", **metadata):
    return new_notebook(cells=[new_code_cell(source, outputs=list(outputs), metadata=metadata)])


def _text(text):
    return new_output("stream", text=text)


@pytest.mark.parametrize(
    ("kept", "fresh", "same"),
    [
        (_shows(_text("alpha 2.50, noise")), _shows(_text("alpha  2.51,  noise")), True),  # the last digit
        (_shows(_text("alpha 2.50, noise")), _shows(_text("alpha 2.60, noise")), False),
        (_shows(_text("alpha 2.50"), tolerance=0.1), _shows(_text("alpha 2.60"), tolerance=0.1), True),
        (_shows(_text("p 3e-06")), _shows(_text("p 3e-04")), False),
        (_shows(_text("p = 0.3 for -1")), _shows(_text("p = 0.3 for 1")), False),
        (_shows(_text("phase noise")), _shows(_text("phase heavy-tailed")), False),
        (_shows(_text("a\nb")), _shows(_text("a")), False),
        (_shows(_text("3 layers")), _shows(), False),
        (_shows(_text("1"), source="a"), _shows(_text("1"), source="b"), False),
        (
            _shows(new_output("display_data", data={"image/png": "AA", "text/plain": "<Figure>"})),
            _shows(new_output("display_data", data={"image/png": "BB", "text/plain": "<Figure size 1>"})),
            True,
        ),
        (
            _shows(new_output("display_data", data={"image/png": "AA", "text/plain": "<Figure>"})),
            _shows(new_output("display_data", data={"text/plain": "<Figure>"})),
            False,
        ),
        (_shows(_text("1")), new_notebook(cells=[]), False),
    ],
)
def test_differences_are_told_from_last_digits(kept, fresh, same):
    assert (differences(kept, fresh) == []) is same
