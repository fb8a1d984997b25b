"""What every command with an output checks before the work."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import run


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "tokenizer").mkdir(parents=True)
    save_file({"w": torch.randn(12, 10)}, model / "model.safetensors")
    return model


@pytest.mark.parametrize("name", ["config.json", "tokenizer/settings.json", "CONFIG.JSON"])
@pytest.mark.parametrize("command", [("audit",), ("compare", "{}"), ("survey",)])
def test_no_output_replaces_a_file_of_the_source(folder, capsys, command, name):
    settings = folder / name
    settings.write_text('{"model_type": "bert"}')
    arguments = [argument.format(folder) for argument in command]
    status, _, err = run(capsys, *arguments, folder, "-o", settings)
    assert status == 2
    assert "would replace" in err
    assert json.loads(settings.read_text()) == {"model_type": "bert"}
    link = folder.parent / "link.json"
    link.symlink_to(settings)
    assert run(capsys, *arguments, folder, "-o", link)[0] == 2


def test_a_result_is_replaced_by_the_next_one(folder, capsys):
    for _ in range(2):
        status, *_ = run(capsys, "audit", folder, "-o", folder / "audit.json", "-o", folder / "audit.csv")
        assert status == 0
    assert "summary" in json.loads((folder / "audit.json").read_text())


def test_the_source_itself_is_no_output(tmp_path, capsys):
    path = tmp_path / "model.json"  # the suffix of an output, the content of a checkpoint
    torch.save({"w": torch.randn(12, 10)}, path)
    before = path.read_bytes()
    assert run(capsys, "audit", path, "-o", path)[0] == 2
    assert path.read_bytes() == before
