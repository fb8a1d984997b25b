"""Safetensors files and directories are read if they are whole and refused if they are broken."""

import json

import pytest
import torch
from safetensors.torch import save_file

from htsr import InputError
from htsr.weights import open_source


def test_numbers_in_names_are_compared_as_numbers(tmp_path):
    save_file({f"layer.{i}.weight": torch.zeros(3, 2) for i in (10, 2, 1)}, tmp_path / "m.safetensors")
    assert [x.name for x in open_source(tmp_path / "m.safetensors").layers] == ["layer.1", "layer.2", "layer.10"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_every_floating_type_is_read(tmp_path, dtype):
    weight = torch.randn(6, 4).to(dtype)
    save_file({"w": weight}, tmp_path / "m.safetensors")
    (layer,) = open_source(tmp_path / "m.safetensors").layers
    assert torch.equal(layer.load().float(), weight.float())


@pytest.mark.parametrize("with_index", [True, False])
def test_shards_are_one_model(tmp_path, with_index):
    for i in (1, 2):
        save_file({f"layer.{i}.weight": torch.full((3, 2), float(i))}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    if with_index:
        index = {"weight_map": {f"layer.{i}.weight": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    layers = open_source(tmp_path).layers
    assert [float(x.load()[0, 0]) for x in layers] == [1, 2]


def test_the_same_name_in_two_files_is_refused(tmp_path):
    for name in ("a", "b"):
        save_file({"w": torch.zeros(3, 2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"'w' is in both a.safetensors and b.safetensors"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint, just text\n" * 5])
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        open_source(path)


@pytest.mark.parametrize("keep", [4, 40, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.zeros(30, 20), "v": torch.zeros(30, 20)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(InputError, match="truncated"):
        open_source(path)


def test_any_name_sorts(tmp_path):
    names = ["²", "l.1²", "层.10", "层.9", "a/b.2", ""]
    save_file({name: torch.zeros(3, 2) for name in names}, tmp_path / "m.safetensors")
    listed = [x.name for x in open_source(tmp_path / "m.safetensors").layers]
    assert sorted(listed) == sorted(names)
    assert listed.index("层.9") < listed.index("层.10")


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(tmp_path, with_index):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({"a.weight": torch.zeros(3, 2)}, tmp_path / first)
    if with_index:
        index = {"weight_map": {"a.weight": first, "b.weight": second}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"1 of 2 shards are missing: {second}"):
        open_source(tmp_path)


def test_a_broken_index_is_named(tmp_path):
    save_file({"a.weight": torch.zeros(3, 2)}, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors.index.json").write_text("{")
    with pytest.raises(InputError, match=r"m.safetensors.index.json: expected a (JSON object|weight_map)"):
        open_source(tmp_path)
