"""Sources are recognised by type, content or suffix; anything else is refused with an error that says what is expected."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from htsr import InputError
from htsr.weights import open_source


def test_paths_as_text_and_as_path(tmp_path):
    save_file({"w": torch.zeros(3, 2)}, tmp_path / "m.safetensors")
    for path in (tmp_path, str(tmp_path), tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        assert [x.name for x in open_source(path).layers] == ["w"]


def test_missing_path():
    with pytest.raises(FileNotFoundError, match=r"no/such\.safetensors: no such file"):
        open_source("no/such.safetensors")


@pytest.mark.parametrize("source", [nn.Sequential(), {}])
def test_an_empty_source_is_refused(source):
    with pytest.raises(InputError, match="is empty"):
        open_source(source)


def test_an_empty_file_of_tensors_is_refused(tmp_path):
    save_file({}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="is empty"):
        open_source(tmp_path / "m.safetensors")


def test_directories_without_a_checkpoint_name_what_is_there(tmp_path):
    (tmp_path / "notes.md").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected \*.safetensors, .* found notes.md"):
        open_source(tmp_path)


def test_a_directory_with_one_checkpoint_file_is_opened(tmp_path):
    torch.save({"w": torch.zeros(3, 2)}, tmp_path / "model.pt")
    (tmp_path / "notes.md").write_bytes(b"")
    assert [x.name for x in open_source(tmp_path).layers] == ["w"]


def test_other_suffixes_name_the_formats(tmp_path):
    (tmp_path / "model.txt").write_bytes(b"")
    with pytest.raises(InputError, match=r"\.safetensors, \.pt.*got the suffix '.txt'"):
        open_source(tmp_path / "model.txt")


@pytest.mark.parametrize("new", [True, False])
def test_the_content_tells_the_format_where_the_suffix_does_not(tmp_path, new):
    torch.save({"w": torch.zeros(3, 2)}, tmp_path / "model.pth.tar", _use_new_zipfile_serialization=new)
    assert [x.name for x in open_source(tmp_path / "model.pth.tar").layers] == ["w"]


def test_an_index_stands_for_its_shards(tmp_path):
    save_file({"w": torch.zeros(3, 2)}, tmp_path / "m.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "m.safetensors"}}')
    assert [x.name for x in open_source(tmp_path / "model.safetensors.index.json").layers] == ["w"]


def test_links_that_lead_nowhere(tmp_path):
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    for path in (loop, tmp_path):
        with pytest.raises(InputError, match="a symbolic link that leads to no file"):
            open_source(path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (3, "expected a torch.nn.Module, a state dict"),
        (None, "expected a torch.nn.Module, a state dict"),
        ([nn.Linear(2, 2)], "expected a list of arrays or a list of paths, got Linear"),
    ],
)
def test_other_types_are_refused(source, said):
    with pytest.raises(TypeError, match=said):
        open_source(source)


def test_suffixes_in_capitals(tmp_path):
    save_file({"w": torch.zeros(3, 2)}, tmp_path / "M.SAFETENSORS")
    assert len(open_source(tmp_path / "M.SAFETENSORS").layers) == 1


def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", "/dev/null"):
        with pytest.raises(InputError, match="a device, a pipe"):
            open_source(path)


@pytest.mark.parametrize("argument", [{"state": 3}, {"base": 3}, {"base": object()}, {"state": ["exp_avg"]}])
def test_an_argument_of_a_wrong_type_is_no_fault_of_the_file(tmp_path, argument):
    save_file({"w": torch.zeros(3, 2)}, tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match="expected"):
        open_source(tmp_path / "m.safetensors", **argument)
