"""The survey command."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import run


@pytest.fixture
def half(checkpoint, tmp_path):
    path = tmp_path / "half.pt"
    torch.save({name: tensor.half() for name, tensor in load_file(checkpoint).items()}, path)
    return path


def test_survey(checkpoint, half, tmp_path, capsys):
    outputs = [tmp_path / f"s{suffix}" for suffix in (".html", ".csv", ".json", ".parquet")]
    written = [part for path in outputs for part in ("-o", path)]
    status, out, err = run(capsys, "survey", tmp_path, *written)
    assert (status, err) == (0, "")
    assert "2 weight files: 1 network in 1 family" in out
    assert "2 of 2 matrices equal within float16 rounding" in out
    assert all(f"wrote {path}" in out for path in outputs)
    assert all(path.stat().st_size for path in outputs)


def test_survey_json(checkpoint, half, capsys):
    status, out, err = run(capsys, "survey", half, checkpoint, "--json")
    assert status == 0
    assert [row["relation"] for row in json.loads(out)["files"]] == ["reference", "same weights"]
    assert "family 1: 2 files" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "no weight file found; expected files such as *.safetensors"),
        (["{empty}/missing"], "no such file or directory, and no installed package has this name"),
        (["{checkpoint}", "-o", "x.docx"], "expected a suffix"),
    ],
)
def test_bad_input(arguments, message, checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "checkpoint": checkpoint}
    status, out, err = run(capsys, "survey", *(argument.format(**places) for argument in arguments))
    assert (status, out) == (2, "")
    assert message in err


def test_a_file_that_cannot_be_read_fails_nothing(checkpoint, tmp_path, capsys):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF nonsense")
    status, out, _ = run(capsys, "survey", tmp_path)
    assert status == 0
    assert "1 cannot be read" in out
