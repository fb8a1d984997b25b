"""Which files a survey finds, and which of them are one checkpoint."""

import json
import os
import sys

import pytest
import torch

from htsr.comparison.survey.files import find_files
from tests.comparison.survey.conftest import network, save


def found(*paths):
    entries, without = find_files(paths)
    return [(entry.path.name, len(entry.files), bool(entry.reason)) for entry in entries], without


@pytest.fixture
def tensors():
    return network(shapes={"a": (6, 4), "b": (5, 6)})


def test_files_below_a_directory_in_natural_order(tmp_path, tensors):
    for name in ("step10.pt", "step9.pt", "deep/er/model.safetensors", "w.npz", ".hidden/x.pt", "._step9.pt", ".y.pt"):
        save(tmp_path / name, tensors)
    (tmp_path / "readme.txt").write_text("x" * 100)
    (tmp_path / "empty").mkdir()
    names, without = found(tmp_path)
    assert [name for name, *_ in names] == ["step9.pt", "step10.pt", "w.npz", "model.safetensors"]
    assert without == []
    assert found(tmp_path / "empty", tmp_path / "w.npz")[1] == [str(tmp_path / "empty")]


def test_torch_files_are_known_by_their_content(tmp_path, tensors):
    for name in ("model.pth.tar", "weights.jit", "no_suffix"):
        save(tmp_path / name, tensors)
    torch.save(tensors, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    (tmp_path / "archive.tar").write_bytes(b"PK\x03\x04 damaged")
    assert [name for name, *_ in found(tmp_path)[0]] == ["model.pth.tar", "no_suffix", "old.th", "weights.jit"]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_the_shards_of_an_index_are_one_checkpoint(tmp_path, tensors, suffix):
    names = [f"model-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    halves = [{k: v for k, v in tensors.items() if k.startswith(letter)} for letter in "ab"]
    for name, half in zip(names, halves, strict=True):
        save(tmp_path / name, half)
    save(tmp_path / f"other.{suffix}", tensors)
    index = tmp_path / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": {k: names[k.startswith("b")] for k in tensors}}))
    assert found(tmp_path)[0] == [(index.name, 2, False), (f"other.{suffix}", 1, False)]
    entry = find_files([index])[0][0]
    assert sorted(stored.key for stored in entry.list_tensors().tensors if not stored.reason) == sorted(tensors)
    assert entry.size == sum((tmp_path / name).stat().st_size for name in names)
    (tmp_path / names[1]).unlink()
    assert found(tmp_path)[0][0] == (index.name, 2, True)


def test_numbered_shards_without_an_index(tmp_path, tensors):
    for number, letter in enumerate("ab", start=1):
        part = {k: v for k, v in tensors.items() if k.startswith(letter)}
        save(tmp_path / f"net-{number}-of-2.safetensors", part)
    assert found(tmp_path)[0] == [("net-1-of-2.safetensors", 2, False)]
    assert found(tmp_path / "net-2-of-2.safetensors")[0] == [("net-1-of-2.safetensors", 2, False)]
    (tmp_path / "net-1-of-2.safetensors").unlink()
    assert found(tmp_path)[0] == [("net-2-of-2.safetensors", 1, True)]


def test_checkpoints_that_are_directories(tmp_path, tensors):
    import torch.distributed.checkpoint as dcp

    dcp.save(dict(tensors), checkpoint_id=tmp_path / "dcp", no_dist=True)
    for name in ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"):
        save(tmp_path / "zero" / name, tensors)
    entries = find_files([tmp_path])[0]
    assert [(entry.path.name, entry.format()) for entry in entries] == [
        ("dcp", "torch.distributed"),
        ("zero", "DeepSpeed ZeRO"),
    ]
    assert len(entries[0].list_tensors().tensors) == len(tensors)
    assert "zero_to_fp32" in entries[1].reason


def test_formats_without_a_reader_are_listed(tmp_path):
    for name in ("a.tflite", "variables.data-00000-of-00001", "saved_model.pb"):
        (tmp_path / name).write_bytes(b"12345678")
    entries = find_files([tmp_path])[0]
    assert {entry.path.name: entry.format() for entry in entries} == {
        "a.tflite": "TensorFlow Lite model",
        "saved_model.pb": "TensorFlow SavedModel",
        "variables.data-00000-of-00001": "TensorFlow checkpoint",
    }
    assert all("convert" in entry.reason for entry in entries)


def test_links_and_repeated_paths(tmp_path, tensors, monkeypatch):
    path = save(tmp_path / "sub" / "a.pt", tensors)
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken.pt").symlink_to(tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path, path, "sub/a.pt")[0] == [("broken.pt", 1, False), ("a.pt", 1, False)]
    assert found("sub/a.pt", path, "sub/../sub/a.pt") == ([("a.pt", 1, False)], [])


def test_a_folder_that_cannot_be_read(tmp_path, tensors, monkeypatch):
    save(tmp_path / "a.pt", tensors)
    walk = os.walk

    def refusing(root, *, followlinks, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "closed")))
        return walk(root, followlinks=followlinks, onerror=onerror)

    monkeypatch.setattr(os, "walk", refusing)
    assert found(tmp_path)[0] == [("a.pt", 1, False), ("closed", 0, True)]


def test_an_installed_package_is_not_imported(tmp_path, tensors, monkeypatch):
    """By the name of the distribution, with the files that it installed; by the name of a module otherwise."""
    save(tmp_path / "some_net" / "data" / "net.safetensors", tensors)
    save(tmp_path / "some_net" / "data" / "foreign.safetensors", tensors)
    save(tmp_path / "bare" / "w.pt", tensors)
    for package in ("some_net", "bare"):
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
    info = tmp_path / "some_net_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-net-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text("some_net/__init__.py,,\nsome_net/data/net.safetensors,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    both = [("foreign.safetensors", 1, False), ("net.safetensors", 1, False)]
    assert found("some-net-weights") == (both[1:], [])
    assert found("some_net") == found("some_net.data") == (both, [])
    assert found("bare") == ([("w.pt", 1, False)], [])
    assert not {"some_net", "bare"} & sys.modules.keys()


@pytest.mark.parametrize(
    "name", ["no_such_package_here", "no/such/path.pt", "org/name", "", "..x", "os.nothing", "a b"]
)
def test_neither_a_path_nor_a_package(name):
    with pytest.raises(FileNotFoundError, match="no such file or directory, and no installed package"):
        find_files([name])
