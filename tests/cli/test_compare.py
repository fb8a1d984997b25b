"""The compare command."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import htsr
from tests.cli.conftest import run


@pytest.fixture
def tuned(checkpoint, tmp_path):
    tensors = {name: tensor.clone() for name, tensor in load_file(checkpoint).items()}
    tensors["0.weight"] += 0.1
    tensors["2.weight"] = torch.randn(30, 20)
    path = tmp_path / "tuned.safetensors"
    save_file(tensors, path)
    return path


def test_compare(checkpoint, tuned, tmp_path, capsys):
    outputs = [tmp_path / f"c{suffix}" for suffix in (".html", ".csv", ".json", ".parquet")]
    written = [part for path in outputs for part in ("-o", path)]
    status, out, err = run(capsys, "compare", checkpoint, tuned, *written)
    assert status == 0
    assert "2 layers in both (1 unchanged" in out
    assert "1 without a partner" in out
    assert err == ""
    assert all(f"wrote {path}" in out for path in outputs)
    row = htsr.compare(checkpoint, tuned)["0"].row
    assert pd.read_csv(outputs[1]).loc[0, "relative_change"] == row["relative_change"]
    assert "no such name in A" in outputs[0].read_text()


def test_compare_json_gate_and_selection(checkpoint, tuned, capsys):
    status, out, err = run(capsys, "compare", checkpoint, tuned, "--json", "--skip", "3", "--skip", "2")
    assert (status, out) == (2, "")
    assert "'3' matches none" in err
    status, out, err = run(capsys, "compare", checkpoint, tuned, "--json", "--layers", "dense", "--skip", "2")
    assert status == 0
    assert json.loads(out)["unmatched"] == []  # layer 2 is in B only, and left out
    gate = ("--fail-on", "relative_change > 0.5")
    status, out, err = run(capsys, "compare", checkpoint, tuned, "--json", "--rank", "3", *gate)
    assert status == 1
    document = json.loads(out)
    assert [row["subspace_rank"] for row in document["details"]] == [3, 3]
    assert "relative_change > 0.5: holds for 1 layer: 0 (" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}", "{missing}"], "no such file"),
        (["{a}", "{a}", "--fail-on", "alpha > 8"], "did you mean alpha"),
        (["{a}", "{a}", "-o", "x.docx"], "expected a suffix"),
    ],
)
def test_compare_of_bad_input(checkpoint, tmp_path, capsys, arguments, message):
    places = {"a": checkpoint, "missing": tmp_path / "none.safetensors"}
    status, out, err = run(capsys, "compare", *[argument.format(**places) for argument in arguments])
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
