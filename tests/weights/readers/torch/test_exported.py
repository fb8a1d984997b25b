"""Files of torch.export give the rows of the module; nothing in them runs."""

import json
import zipfile

import pytest
import torch
from torch import nn

import htsr
from htsr.weights import open_source

MODULES = {
    "convolutions": nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.ConvTranspose2d(8, 5, 2), nn.BatchNorm2d(5)),
    "depthwise": nn.Conv1d(6, 12, 3, groups=6),
    "dense": nn.Sequential(nn.Linear(9, 7), nn.GELU(), nn.Linear(7, 5, bias=False)),
    "half": nn.Linear(9, 7, bias=False).to(torch.bfloat16),
    "lstm": nn.LSTM(9, 5),
}
INPUTS = {"convolutions": (1, 6, 9, 9), "depthwise": (1, 6, 9)}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, x):
        return self.head(self.wte(x))


def export(module, inputs, path):
    torch.export.save(torch.export.export(module.eval(), (inputs,)), path)
    return path


def changed(path, ending, change):
    """Rewrite one entry of an archive, and return the archive."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, change(data) if name.endswith(ending) else data)
    return path


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
@pytest.mark.parametrize("case", MODULES)
def test_a_file_has_the_rows_of_its_module(case, suffix, tmp_path):
    module = MODULES[case]
    dtype = next(module.parameters()).dtype
    path = export(module, torch.zeros(INPUTS.get(case, (3, 9)), dtype=dtype), tmp_path / f"m{suffix}")
    layers, truth = open_source(path).layers, open_source(module).layers
    assert [(a.name, a.layer_type, a.shape, a.dtype) for a in layers] == [
        (b.name, b.layer_type, b.shape, b.dtype) for b in truth
    ]
    for layer, other in zip(layers, truth, strict=True):
        torch.testing.assert_close(layer.load(), other.load().detach(), rtol=0, atol=0)


def test_tied_weights(tmp_path):
    path = export(Tied(), torch.zeros(1, 3, dtype=torch.long), tmp_path / "m.pt2")
    assert {layer.tied_to for layer in open_source(path).layers} <= {None, "wte"}


def test_statistics_are_buffers(tmp_path):
    path = export(MODULES["convolutions"], torch.zeros(1, 6, 9, 9), tmp_path / "m.pt2")
    reasons = {item.name: item.reason for item in open_source(path).skipped}
    assert "buffer" in reasons["2.running_mean"]


@pytest.mark.parametrize("size", [10**9, -1, "3", None])
def test_a_size_that_does_not_fit_is_no_row(size, tmp_path):
    def grow(data):
        config = json.loads(data)
        config["config"]["weight"]["tensor_meta"]["sizes"][0]["as_int"] = size
        return json.dumps(config).encode()

    path = changed(export(nn.Linear(9, 7), torch.zeros(1, 9), tmp_path / "m.pt2"), "_weights_config.json", grow)
    if size == 10**9:
        assert not open_source(path).layers
        return
    with pytest.raises(htsr.InputError, match=r"m\.pt2"):
        open_source(path)


@pytest.mark.parametrize("ending", ["_weights_config.json", "models/model.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"config": 3, "graph_module": []}', b"\xff"])
def test_damaged_json_is_refused(ending, content, tmp_path):
    path = changed(export(nn.Linear(9, 7), torch.zeros(1, 9), tmp_path / "m.pt2"), ending, lambda _: content)
    with pytest.raises(htsr.InputError, match=r"m\.pt2"):
        open_source(path)


def test_an_older_program_says_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(htsr.InputError, match=r"torch\.export\.load"):
        open_source(tmp_path / "m.pt2")
