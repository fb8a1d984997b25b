"""One capture, one file."""

import numpy as np
import pytest
import torch

import htsr
from htsr.audit.row import known_cells
from htsr.files import written_aside
from htsr.training.store.capture import Capture
from htsr.training.store.files import capture_name


def capture(step=3):
    analysis = htsr.analyze({"a": torch.randn(30, 20), "b/c d": torch.randn(12, 9, 3, 3), "zero": torch.zeros(4, 4)})
    spectra = {("weights", name): spectrum for name, spectrum in analysis.spectra.items()}
    return Capture(step, 1.5, 0.25, [layer.row for layer in analysis], spectra, [{"lr": 0.1, "algorithm": "adamw"}])


def test_round_trip_is_exact(tmp_path):
    before = capture()
    before.save(tmp_path / capture_name(3))
    after = Capture.load(tmp_path / capture_name(3))
    assert (after.step, after.seconds, after.analysis_seconds) == (3, 1.5, 0.25)
    assert after.rows == [known_cells(row) for row in before.rows]
    assert after.groups == before.groups
    assert list(after.spectra) == [("weights", name) for name in ("a", "b/c d", "zero")]
    for name, spectrum in before.spectra.items():
        assert np.array_equal(after.spectra[name].eigenvalues, spectrum.eigenvalues)
        assert after.spectra[name].shape == spectrum.shape


def test_a_capture_without_spectra(tmp_path):
    Capture(0, 0.0, 0.0, [], {}, []).save(tmp_path / capture_name(0))
    assert Capture.load(tmp_path / capture_name(0)).spectra == {}


def test_a_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_half_way():
        with written_aside(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
