"""Settings beside the weights are followed, or it is said why not."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from htsr.weights import open_source
from htsr.weights.readers.json_files import QUANTISATIONS

WRITERS = {
    "m.safetensors": lambda path, weights: save_file(weights, path),
    "m.pt": lambda path, weights: torch.save(weights, path),
    "m.npz": lambda path, weights: np.savez(path, **{name: weight.numpy() for name, weight in weights.items()}),
}


def skipped(source):
    return {item.name: item.reason for item in open_source(source).skipped}


@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 50_000, b'{"a": ' * 50_000])
@pytest.mark.parametrize("name", ["config.json", *QUANTISATIONS])
def test_damaged_settings_are_listed(tmp_path, file, content, name):
    WRITERS[file](tmp_path / file, {"w": torch.ones(8, 6)})
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path, tmp_path / file):
        assert [layer.name for layer in open_source(source).layers] == ["w"]
        assert skipped(source)[name].startswith("not read, so nothing that it sets is followed: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_settings_that_are_no_file_are_listed(tmp_path, make):
    save_file({"w": torch.ones(8, 6)}, tmp_path / "m.safetensors")
    make(tmp_path / "config.json")
    assert "expected a JSON file" in skipped(tmp_path)["config.json"]


def test_sound_settings_and_none_are_not_listed(tmp_path):
    save_file({"w": torch.ones(8, 6)}, tmp_path / "m.safetensors")
    assert skipped(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert skipped(tmp_path) == {}
