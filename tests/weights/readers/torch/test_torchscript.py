"""TorchScript files are read as the modules that they were made from, and nothing in them runs."""

import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import htsr
from htsr.weights import open_source


class Net(nn.Module):
    """Layers whose roles only their classes or their code tell."""

    def __init__(self, groups):
        super().__init__()
        torch.manual_seed(groups)
        self.table = nn.Embedding(30, 12)
        self.first = nn.Conv2d(8, 16, 3, groups=groups)
        self.second = nn.ConvTranspose1d(12, 20, 5)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16, bias=False)
        self.lstm = nn.LSTM(12, 10, num_layers=2, bidirectional=True)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Sequential(nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, 20))
        self.fc[2].weight = nn.Parameter(self.fc[0].weight.detach().T)  # stored with other strides
        self.register_buffer("basis", torch.randn(9, 9))

    def forward(self, ids, image):
        table = self.table(ids)
        tall = self.second(table.transpose(1, 2))
        return self.fc(self.lstm(table)[0]), self.norm(self.depthwise(self.first(image))), tall, self.basis


INPUTS = (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(1, 8, 9, 9))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("make", ["script", "trace"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_has_the_layers_of_its_module(make, groups, dtype, tmp_path):
    model = Net(groups).eval().to(dtype)
    inputs = (INPUTS[0], INPUTS[1].to(dtype))
    compiled = torch.jit.script(model) if make == "script" else torch.jit.trace(model, inputs)
    compiled.save(str(tmp_path / "m.pt"))
    wanted = {layer.name: layer for layer in open_source(model).layers}
    found = {layer.name: layer for layer in open_source(tmp_path / "m.pt").layers}
    assert set(found) == set(wanted)
    for name, layer in found.items():
        assert (layer.layer_type, layer.dtype, layer.note) == (wanted[name].layer_type, wanted[name].dtype, "")
        assert torch.equal(pickle.loads(pickle.dumps(layer)).load(), wanted[name].load())


def rewritten(path, entry, content, compression=zipfile.ZIP_STORED):
    """Write an archive again with another content for one entry."""
    other = path.with_name("other.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for item in old.infolist():
            changed = item.filename.endswith(entry)
            new.writestr(
                item.filename, content(old.read(item)) if changed else old.read(item), compression if changed else None
            )
    return other


@pytest.fixture
def saved(tmp_path):
    torch.jit.script(nn.Linear(40, 30)).save(str(tmp_path / "m.pt"))
    return tmp_path / "m.pt"


@pytest.mark.parametrize(
    ("content", "compression", "reason"),
    [
        (lambda data: data[:-4], zipfile.ZIP_STORED, "fewer values"),
        (lambda data: b"", zipfile.ZIP_STORED, "fewer values"),
        (lambda data: data, zipfile.ZIP_DEFLATED, "compressed inside"),
    ],
)
def test_a_damaged_record_is_no_row(content, compression, reason, saved):
    inventory = open_source(rewritten(saved, "/data/0", content, compression))
    assert not inventory.layers
    assert reason in {item.name: item.reason for item in inventory.skipped}["weight"]


class Evil:
    """An object whose pickle creates a directory when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.canary),)


def test_nothing_in_the_pickle_runs(saved, tmp_path):
    bad = rewritten(saved, "/data.pkl", lambda _: pickle.dumps({"a": Evil(tmp_path / "canary")}))
    with pytest.raises(htsr.InputError):
        htsr.analyze(bad)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"garbage"])
def test_a_damaged_pickle_is_refused(content, saved):
    with pytest.raises(htsr.InputError):
        open_source(rewritten(saved, "/data.pkl", lambda _: content))


def test_an_expanded_view_is_no_row(tmp_path):
    module = nn.Linear(40, 30)
    module.weight = nn.Parameter(torch.randn(40).expand(30, 40))
    torch.jit.script(module).save(str(tmp_path / "m.pt"))
    (reason,) = [item.reason for item in open_source(tmp_path / "m.pt").skipped if item.name == "weight"]
    assert "expanded" in reason


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".safetensors", ".h5", ".gguf"])
def test_a_git_lfs_pointer_says_how_to_fetch_the_file(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123456\n")
    with pytest.raises(htsr.InputError, match=r"123,456 bytes.*git lfs pull"):
        open_source(path)


def test_the_numbers_are_those_of_the_file(saved):
    shutil.copy(saved, saved.with_name("copy.pt"))
    loaded = torch.jit.load(str(saved)).weight.detach().numpy()
    np.testing.assert_array_equal(open_source(saved.with_name("copy.pt")).layers[0].load(), loaded)
