"""Formats without a reader are refused with one line that says what to convert to."""

import numpy as np
import pytest
import torch

import htsr
from htsr.weights import open_source
from htsr.weights.readers.formats import CONTAINERS, FOREIGN_MODELS


@pytest.mark.parametrize("end", [*FOREIGN_MODELS, *CONTAINERS, ".data-00003-of-00017"])
def test_a_file_says_what_to_convert_to(end, tmp_path):
    path = tmp_path / f"{'' if end[0] != '.' else 'm'}{end}"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(htsr.InputError, match=r"convert|unpack") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "inside"), [("m", "saved_model.pb"), ("m.mlpackage", "Manifest.json")])
def test_a_directory_says_what_to_convert_to(name, inside, tmp_path):
    (tmp_path / name / "variables").mkdir(parents=True)
    (tmp_path / name / inside).write_bytes(b"{}")
    with pytest.raises(htsr.InputError, match="convert"):
        open_source(tmp_path / name)


def test_a_checkpoint_beside_a_foreign_file_is_read(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    np.savez(tmp_path / "m.npz", w=np.ones((4, 3)))
    assert len(open_source(tmp_path).layers) == 1


@pytest.mark.parametrize("suffix", [".jit", ".ptl"])
def test_suffixes_of_torchscript(suffix, tmp_path):
    (tmp_path / "m").mkdir()
    torch.jit.script(torch.nn.Linear(6, 5)).save(str(tmp_path / "m" / f"m{suffix}"))
    for source in (tmp_path / "m", tmp_path / "m" / f"m{suffix}"):
        assert [layer.shape for layer in open_source(source).layers] == [(5, 6)]
